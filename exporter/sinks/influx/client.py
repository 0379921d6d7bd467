"""A thin, typed door to InfluxDB 1.8, 2 and 3: one write path (`/api/v2/write`), one way to ask (InfluxQL).

influxdb-client does the writing, without retries of its own: the writer decides what is tried again. It and urllib3
are loaded with the first Client, so that commands without InfluxDB start quickly and stay small.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from exporter.sinks.contract import Verdict, WriteResult
from exporter.sinks.influx.answers import clean, judge, message_in

__all__ = ["Answer", "Client", "Http", "QueryError", "Series", "Unreachable", "quoted", "unreachable"]

log = logging.getLogger(__name__)

NOTHING = "\n"
"""The body of a write that asks whether a write would be allowed, and leaves nothing behind."""

_EARLIEST, _LATEST = "1677-09-22T00:00:00Z", "2262-04-11T00:00:00Z"  # that a time in ns can be
_DELETING_S = 600.0
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


class Unreachable(Exception):  # noqa: N818 - it is not always an error: the server may just not be up yet
    """No answer came. `words` say why; `mendable` tells that waiting will not help (certificate, address)."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.permanent = permanent


class QueryError(Exception):
    """A query was not answered; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    body: str
    headers: Mapping[str, str]

    def json(self) -> Any:
        """The body as JSON, None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Series:
    """One series of a query's answer: rows of values by column; `time` is in ms since 1970."""

    name: str
    tags: Mapping[str, str]
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Http:
    """HTTP requests to one server: certificates always checked, no redirects, no retries, bounded time.

    `ca_cert` is a file with the certificate of a private authority; None uses the system's. Raises ValueError for a
    URL that is none, or a certificate that is not there.
    """

    def __init__(self, url: str, token: str = "", *, timeout: float = 10.0, ca_cert: Path | None = None) -> None:
        import urllib3

        self.url = url.rstrip("/")
        self.address = _shown(self.url)
        if ca_cert is not None and not ca_cert.is_file():
            raise ValueError(f"there is no certificate at {ca_cert}: mend HAN_INFLUX_CA_CERT")
        self._token = token
        self._seconds = timeout
        self._timeout = urllib3.Timeout(connect=timeout, read=timeout)
        self._pool = urllib3.PoolManager(
            retries=False, cert_reqs="CERT_REQUIRED", ca_certs=None if ca_cert is None else str(ca_cert)
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        content: Any = None,
        token: str | None = None,
        read_timeout: float | None = None,
    ) -> Answer:
        """Ask; `content` is sent as JSON. `token` is used in place of this door's. Raises Unreachable.

        `read_timeout` in seconds, for an answer that may take longer than others.
        """
        import urllib3

        used = self._token if token is None else token
        headers = {"Authorization": f"Token {used}"} if used else {}
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            answer = self._pool.request(
                method,
                self.url + path + (f"?{urlencode(query)}" if query else ""),
                body=None if content is None else json.dumps(content).encode(),
                headers=headers,
                timeout=self._timeout if read_timeout is None else urllib3.Timeout(self._seconds, read_timeout),
            )
        except (urllib3.exceptions.HTTPError, ValueError, OSError) as problem:
            raise unreachable(problem, self.address) from problem
        text = answer.data.decode("utf-8", "replace")
        return Answer(answer.status, text, {name.lower(): value for name, value in answer.headers.items()})

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.clear()


class Client:
    """One bucket of one InfluxDB: write lines to it, ask it.

    `url` as in http://localhost:8086. `bucket` is a bucket's name, with InfluxDB 1.8 `database` or
    `database/retention policy`, with 3 a database; `token` is a token, with 1.8 `user:password` or empty; `org` is
    needed by InfluxDB 2 only. `timeout` is in seconds, for connecting and for each answer. Raises ValueError for a
    URL that is none, or a certificate that is not there.
    """

    def __init__(
        self,
        url: str,
        *,
        bucket: str,
        token: str = "",
        org: str = "",
        timeout: float = 10.0,
        ca_cert: Path | None = None,
    ) -> None:
        from influxdb_client.client.influxdb_client import InfluxDBClient
        from influxdb_client.service.write_service import WriteService

        self.bucket = bucket
        self._org = org or "-"  # InfluxDB 1.8 and 3 take any, and the client insists on one
        self._timeout = timeout
        self._wondered = False
        self._http = Http(url, token, timeout=timeout, ca_cert=ca_cert)
        self.address = self._http.address
        # Through this computer's own memory octets go faster than they are packed.
        self._packed = urlsplit(url).hostname not in _HERE
        # Any: what this library says about its types is not to be relied on
        self._influx: Any = InfluxDBClient(
            url=self._http.url,
            token=token,
            org=self._org,
            timeout=int(timeout * 1000),
            enable_gzip=False,  # done here, at a level that costs a small computer less
            verify_ssl=True,
            ssl_ca_cert=None if ca_cert is None else str(ca_cert),
            retries=False,
        )
        service: Any = WriteService
        self._service = service(self._influx.api_client)

    def write(self, lines: Sequence[str], *, timeout: float | None = None) -> WriteResult:
        """Post finished lines (times in ms) as one batch and say what became of it; it raises nothing.

        `timeout` in seconds, if this write must be done with sooner.
        """
        return self._post("\n".join(lines), timeout)

    def can_write(self) -> WriteResult:
        """Ask whether a write to the bucket would be allowed; nothing is left behind.

        A body of one empty line is posted: InfluxDB 1.8.10 and 2.8.0 both look at token, organisation, bucket and
        permission first, as for any write (401, 403, 404), and then answer 204 having nothing to do.
        """
        outcome = self._post(NOTHING, None)
        # By its documents InfluxDB 3 may find that there is no line in it: then it has let the write in.
        return WriteResult(Verdict.TAKEN) if outcome.verdict is Verdict.BAD_LINES else outcome

    def _post(self, body: str, timeout: float | None) -> WriteResult:
        import urllib3
        from influxdb_client.rest import ApiException

        millis = max(1, int((self._timeout if timeout is None else timeout) * 1000))
        target = f'bucket or database "{clean(self.bucket, 100)}"'
        try:
            _, status, headers = self._service.post_write_with_http_info(
                self._org,
                self.bucket,
                gzip.compress(body.encode(), compresslevel=3, mtime=0) if self._packed else body.encode(),
                precision="ms",
                **({"content_encoding": "gzip"} if self._packed else {}),
                _request_timeout=(millis, millis),
            )
            text = ""
            if status == 204 and not _names_influx(headers):
                self._wonder()
        except ApiException as answer:
            if not answer.status:
                return _not_sent(unreachable(answer, self.address))
            status, text, headers = answer.status, answer.body or "", answer.headers or {}
        except UnicodeDecodeError:
            words = f"{self.address} answers with octets that are no text: is HAN_INFLUX_URL right?"
            return WriteResult(Verdict.MISCONFIGURED, words)
        except (urllib3.exceptions.HTTPError, ValueError, OSError) as problem:
            return _not_sent(unreachable(problem, self.address))
        return judge(status, text, headers.get("Retry-After"), target=target, address=self.address)

    def _wonder(self) -> None:
        """Say once that a 204 came without a name: 1.8.10 and 2.8.0 say theirs in every answer, a proxy may not."""
        if not self._wondered:
            self._wondered = True
            log.warning(
                "%s takes lines without saying that it is an InfluxDB: is HAN_INFLUX_URL right (host, port), and is no "
                "log-in page in between? What it took is not kept here.",
                self.address,
            )

    def version(self) -> str:
        """The server's version by its `/ping`, "" when it does not say. Raises Unreachable."""
        answer = self._http.request("GET", "/ping")
        if version := answer.headers.get("x-influxdb-version"):
            return clean(version.removeprefix("v"), 40)
        content = answer.json()  # InfluxDB 3 says it in the body
        return clean(str(content.get("version", "")), 40) if isinstance(content, dict) else ""

    def query(self, influxql: str, *, database: str | None = None) -> list[Series]:
        """Ask in InfluxQL; times come in ms since 1970.

        A bucket that does not exist, or that the token may not read, is "database not found" on InfluxDB 2.8 for a
        SELECT, and silently empty for SHOW MEASUREMENTS. Raises QueryError.
        """
        db, _, policy = (database or self.bucket).partition("/")
        query = {"db": db, "q": influxql, "epoch": "ms"} | ({"rp": policy} if policy else {})
        try:
            answer = self._http.request("GET", "/query", query=query)
        except Unreachable as problem:
            raise QueryError(problem.message) from problem
        content = answer.json()
        if answer.status != 200 or not isinstance(content, dict):
            said, _ = message_in(answer.body)
            raise QueryError(f"InfluxDB at {self.address} does not answer the query: {answer.status} ({said})")
        return _series(content)

    def delete(self, tag: str, value: str) -> None:
        """Delete every point, of all times, whose `tag` has this value.

        InfluxDB 2 has an API for that; 1.8 answers 404 to it, and drops the series (of a database's every retention
        policy). Of 2.8 it was seen that SHOW TAG VALUES names the value still, unless it is asked WHERE some tag is
        not ''. Raises QueryError.
        """
        predicate = {"start": _EARLIEST, "stop": _LATEST, "predicate": f"{tag}={quoted(value, chr(34))}"}
        query = {"org": self._org, "bucket": self.bucket}
        try:
            answer = self._http.request(
                "POST", "/api/v2/delete", query=query, content=predicate, read_timeout=_DELETING_S
            )
            if answer.status == 404 and not message_in(answer.body)[1]:
                drop = f'DROP SERIES FROM /.*/ WHERE "{tag}" = {quoted(value)}'
                query = {"db": self.bucket.partition("/")[0], "q": drop}
                answer = self._http.request("POST", "/query", query=query, read_timeout=_DELETING_S)
        except Unreachable as problem:
            raise QueryError(problem.message) from problem
        if not 200 <= answer.status < 300:
            said, _ = message_in(answer.body)
            raise QueryError(f"InfluxDB at {self.address} does not delete: {answer.status} ({said})")
        content = answer.json()
        if isinstance(content, dict):
            _series(content)

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()
        self._influx.close()


def quoted(text: str, mark: str = "'") -> str:
    """A text as InfluxQL, or with `"` the delete API, takes it."""
    return mark + text.replace("\\", "\\\\").replace(mark, f"\\{mark}") + mark


def _series(content: Mapping[str, Any]) -> list[Series]:
    """Read the body of an answer to `/query`; raises QueryError when it reports an error."""
    found = []
    for result in content.get("results", []):
        if "error" in result:
            raise QueryError(f"InfluxDB does not answer the query: {clean(str(result['error']))}")
        for one in result.get("series", []):
            rows = tuple(tuple(row) for row in one.get("values", []))
            found.append(Series(one.get("name", ""), one.get("tags", {}), tuple(one["columns"]), rows))
    return found


def _names_influx(headers: Mapping[str, str]) -> bool:
    return any(name.lower().startswith("x-influxdb-") for name in headers)


def _not_sent(problem: Unreachable) -> WriteResult:
    return WriteResult(Verdict.MISCONFIGURED if problem.permanent else Verdict.RETRY, problem.message)


def unreachable(problem: Exception, address: str) -> Unreachable:
    """Say in words why no answer came. A connection that breaks may still have delivered what was sent."""
    # influxdb-client puts urllib3's SSLError, and nothing else, into an ApiException without a status
    kind, text = type(problem).__name__, str(problem).removeprefix("(0)\nReason: SSLError")
    if kind in ("SSLError", "ApiException"):
        words = f"the secure connection to {address} fails ({clean(text, 200)}): {_mending(text)}"
        return Unreachable(words, permanent=True)
    reason = {
        "NameResolutionError": "its name is not known",
        "ConnectTimeoutError": "no answer in time",
        "ReadTimeoutError": "no answer in time",
        "NewConnectionError": "connection refused" if "refused" in text else "no way there",
    }.get(kind, "the connection broke")
    return Unreachable(f"InfluxDB at {address} cannot be reached: {reason}")


def _mending(text: str) -> str:
    """What to do about a certificate, from OpenSSL's words."""
    if "mismatch" in text:
        return "set HAN_INFLUX_URL to a name that its certificate is for, or have one made for this name"
    if "expired" in text or "not yet valid" in text:
        return "renew the certificate of InfluxDB, and look whether this computer's clock is right"
    if "Missing" in text or "invalid CA" in text:  # Python 3.13 and later ask for more than those before
        return "have the certificate made again with what it lacks, and that of its authority"
    return "give the authority's certificate with HAN_INFLUX_CA_CERT, or mend http/https in HAN_INFLUX_URL"


def _shown(url: str) -> str:
    """The address as it may be shown: without user and password. Raises ValueError for what is no address."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("the address of InfluxDB (HAN_INFLUX_URL) must be one like http://localhost:8086")
    return clean(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")), 200)
