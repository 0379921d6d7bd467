"""First set-up of a fresh InfluxDB 2: organisation, bucket, tokens, secrets in files.

Everything can be repeated: a run checks each thing, and makes it only if it is missing or does not work. A secret that
the exporter chooses (operator token, passwords) is in its file before it is sent to InfluxDB. A token that InfluxDB
chooses is written at once, and one that never reached its file is deleted by the next run. So a run that is killed
between any two steps is completed by the next one, and a run after a complete one changes nothing.

API: InfluxDB 2.8 `/api/v2/setup`, `/orgs`, `/buckets`, `/authorizations`, tried on 2.8.0. A token that may not read
a bucket gets an empty list of buckets, not an error.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity

from exporter.sinks.contract import Verdict
from exporter.sinks.influx.answers import clean, message_in
from exporter.sinks.influx.client import Answer, Client, Http, Unreachable

__all__ = ["Owner", "Plan", "SecretFile", "SetupError", "prepare"]

Say = Callable[[str], None]


class SetupError(Exception):
    """InfluxDB cannot be prepared; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Numeric user and group of a file."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class SecretFile:
    """Where a secret is kept, and for whom. With `owner` None it belongs to the user who runs this."""

    path: Path
    owner: Owner | None = None
    mode: int = 0o400

    def read(self) -> str | None:
        """Return the secret, or None when there is none yet."""
        try:
            return self.path.read_text("utf-8").strip() or None
        except FileNotFoundError:
            return None

    def write(self, secret: str) -> None:
        """Write the file completely or not at all. Nobody else can read it at any time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.new")
        partial.unlink(missing_ok=True)  # left by a run that was killed
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secret.encode())  # no newline: Grafana puts a file's content into a header
            if self.owner is not None:
                os.fchown(handle, self.owner.uid, self.owner.gid)
            os.fchmod(handle, self.mode)
            os.fsync(handle)
        finally:
            os.close(handle)
        partial.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def correct_owner(self) -> bool:
        """Correct owner and mode of an existing file; return whether they were wrong."""
        found = self.path.stat()
        right = found.st_mode & 0o7777 == self.mode
        if self.owner is not None:
            right = right and (found.st_uid, found.st_gid) == (self.owner.uid, self.owner.gid)
        if right:
            return False
        if self.owner is not None:
            os.chown(self.path, self.owner.uid, self.owner.gid)
        self.path.chmod(self.mode)
        return True


@dataclass(frozen=True, slots=True)
class Plan:
    """What to prepare. A file that is None is not made.

    `retention_s` is how long InfluxDB keeps points (0: for ever). It is used when the bucket is made. `wait_s` is how
    long to wait for a server that does not answer yet.
    """

    url: str
    org: str
    bucket: str
    user: str
    operator_token: SecretFile
    operator_password: SecretFile
    write_token: SecretFile | None = None
    read_token: SecretFile | None = None
    grafana_password: SecretFile | None = None
    retention_s: int = 0
    wait_s: float = 120.0
    ca_cert: Path | None = None


def prepare(plan: Plan, say: Say) -> int:
    """Carry out a plan, and call `say` for each change; return how many there were. Raises SetupError."""
    try:
        return _Setup(plan, say).run()
    except Unreachable as problem:
        raise SetupError(f"{problem.message}: start it, or correct --url, and run this again") from problem
    except PermissionError as problem:
        raise SetupError(
            f"{problem.filename or 'a file'}: no permission; giving files to another user needs root: "
            "run this as root, or leave the owner out"
        ) from problem
    except OSError as problem:
        raise SetupError(f"{problem.filename or 'a file'} cannot be written: {problem.strerror}") from problem


class _Setup:
    def __init__(self, plan: Plan, say: Say) -> None:
        self._plan = plan
        self._say = say
        self._changes = 0
        try:
            self._http = Http(plan.url, timeout=10.0, ca_cert=plan.ca_cert)
        except ValueError as problem:
            raise SetupError(str(problem)) from problem
        self._operator = ""

    def run(self) -> int:
        plan = self._plan
        self._onboard(fresh=self._await_server())
        org = self._org_id()
        bucket = self._bucket_id(org)
        if plan.write_token is not None:
            self._token("write", plan.write_token, org, bucket, works=self._may_write)
        if plan.read_token is not None:
            self._token("read", plan.read_token, org, bucket, works=lambda token: self._may_read(token, bucket))
        if plan.grafana_password is not None:
            self._own_secret(plan.grafana_password, "Grafana's admin password")
        return self._changes

    def _done(self, message: str) -> None:
        self._changes += 1
        self._say(message)

    # --- server ---------------------------------------------------------------------------------------------

    def _await_server(self) -> bool:
        """Wait until the server answers; return whether it is fresh."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda problem: isinstance(problem, Unreachable) and not problem.permanent
            )
            | tenacity.retry_if_result(lambda answer: answer.status >= 500),
            wait=tenacity.wait_exponential(multiplier=0.2, max=3),
            stop=tenacity.stop_after_delay(self._plan.wait_s),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        answer: Answer = retrying(self._http.request, "GET", "/api/v2/setup")
        if answer.status >= 500:
            raise SetupError(f"{self._http.address} answers {answer.status}: see its log, and run this again")
        content = answer.json()
        if answer.status != 200 or not isinstance(content, dict) or not isinstance(content.get("allowed"), bool):
            raise SetupError(
                f"{self._http.address} is not an InfluxDB 2 ({answer.status}). InfluxDB 1.8 needs no init: "
                "CREATE DATABASE is enough; InfluxDB 3 makes its own tokens (influxdb3 create token)"
            )
        return bool(content["allowed"])

    def _onboard(self, *, fresh: bool) -> None:
        """Give the server its first user, organisation and bucket, and an operator token that is made here."""
        plan = self._plan
        if not fresh:
            self._operator = self._known_operator()
            return
        password = self._own_secret(plan.operator_password, f"the password of InfluxDB's user {plan.user}")
        self._operator = self._own_secret(plan.operator_token, "the operator token")
        content = {
            "username": plan.user,
            "password": password,
            "org": plan.org,
            "bucket": plan.bucket,
            "retentionPeriodSeconds": plan.retention_s,
            "token": self._operator,
        }
        answer = self._http.request("POST", "/api/v2/setup", content=content)
        if answer.status != 201:
            raise self._refused("the first set-up", answer)
        self._done(f"InfluxDB is set up: organisation {plan.org}, bucket {plan.bucket}")

    def _known_operator(self) -> str:
        """Return the operator token of a server that was set up before."""
        file = self._plan.operator_token
        token = file.read()
        if token is None:
            raise SetupError(
                f"InfluxDB at {self._http.address} was set up by someone else: there is no operator token in "
                f"{file.path}. Put an all-access token of it there (influx auth create --all-access), "
                "or begin with an empty InfluxDB"
            )
        if self._http.request("GET", "/api/v2/orgs", token=token).status == 401:
            raise SetupError(
                f"InfluxDB at {self._http.address} does not know the operator token in {file.path}: it was set up "
                "by someone else, or its data was replaced. Put an all-access token of it there, or begin with an "
                "empty InfluxDB and without that file"
            )
        self._correct_owner(file)
        if self._plan.operator_password.read() is not None:
            self._correct_owner(self._plan.operator_password)
        return token

    def _org_id(self) -> str:
        found = self._api("GET", "/api/v2/orgs", "organisations", query={"org": self._plan.org}, missing=404)
        if not found:
            raise SetupError(
                f"InfluxDB at {self._http.address} has no organisation {clean(self._plan.org, 100)}: it was set up "
                "with another name; give that one with --org"
            )
        return str(found["orgs"][0]["id"])

    def _bucket_id(self, org: str) -> str:
        query = {"orgID": org, "name": self._plan.bucket}
        found = self._api("GET", "/api/v2/buckets", "buckets", query=query, missing=404)
        if found and found["buckets"]:
            return str(found["buckets"][0]["id"])
        rules = [{"type": "expire", "everySeconds": self._plan.retention_s}] if self._plan.retention_s else []
        content = {"orgID": org, "name": self._plan.bucket, "retentionRules": rules}
        made = self._api("POST", "/api/v2/buckets", "a new bucket", content=content)
        self._done(f"bucket {self._plan.bucket} is made")
        return str(made["id"])

    # --- secrets --------------------------------------------------------------------------------------------

    def _own_secret(self, file: SecretFile, what: str) -> str:
        """Return a secret from its file, or make one and write it there."""
        if (secret := file.read()) is not None:
            self._correct_owner(file)
            return secret
        secret = secrets.token_urlsafe(32)
        file.write(secret)
        self._done(f"{what} is in {file.path}")
        return secret

    def _correct_owner(self, file: SecretFile) -> None:
        if file.correct_owner():
            self._done(f"owner and mode of {file.path} are corrected")

    def _token(self, action: str, file: SecretFile, org: str, bucket: str, *, works: Callable[[str], bool]) -> None:
        """Keep the token in its file if it works, else make a new one for one bucket and one action."""
        known = file.read()
        if known is not None and works(known):
            self._correct_owner(file)
            return
        description = f"han-exporter: {action} {self._plan.bucket}"
        # A token that never reached its file (that run was killed), or whose file is lost.
        for old in self._api("GET", "/api/v2/authorizations", "tokens", query={"orgID": org})["authorizations"]:
            if old.get("description") == description:
                self._api("DELETE", f"/api/v2/authorizations/{old['id']}", "an old token")
        resource = {"type": "buckets", "id": bucket, "orgID": org}
        content = {
            "orgID": org,
            "description": description,
            "permissions": [{"action": action, "resource": resource}],
        }
        token = str(self._api("POST", "/api/v2/authorizations", "a new token", content=content)["token"])
        file.write(token)
        again = " again, since the one in its file did not work" if known is not None else ""
        self._done(f"a token that may only {action} {self._plan.bucket} is in {file.path}{again}")

    def _may_write(self, token: str) -> bool:
        plan = self._plan
        client = Client(plan.url, bucket=plan.bucket, token=token, org=plan.org, ca_cert=plan.ca_cert)
        try:
            outcome = client.can_write()
        finally:
            client.close()
        if outcome.verdict is Verdict.RETRY:
            raise SetupError(f"{outcome.message}: run this again")
        return outcome.verdict is Verdict.TAKEN

    def _may_read(self, token: str, bucket: str) -> bool:
        answer = self._http.request("GET", "/api/v2/buckets", query={"name": self._plan.bucket}, token=token)
        if answer.status >= 500 or answer.status == 429:
            raise self._refused("buckets", answer)
        content = answer.json()
        found = content.get("buckets", []) if answer.status == 200 and isinstance(content, dict) else []
        return bucket in [one.get("id") for one in found]

    # --- HTTP -----------------------------------------------------------------------------------------------

    def _api(
        self,
        method: str,
        path: str,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        content: Any = None,
        missing: int | None = None,
    ) -> Any:
        """Send a request as operator; return the answer's JSON, or None for the status `missing`."""
        answer = self._http.request(method, path, query=query, content=content, token=self._operator)
        if answer.status == missing:
            return None
        if not 200 <= answer.status < 300:
            raise self._refused(what, answer)
        return answer.json()

    def _refused(self, what: str, answer: Answer) -> SetupError:
        reason, _ = message_in(answer.body)
        return SetupError(f"InfluxDB at {self._http.address} refuses {what}: {answer.status} ({reason})")
