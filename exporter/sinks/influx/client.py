"""A thin, typed client for InfluxDB 1.8, 2 and 3: it writes with `/api/v2/write` and queries with InfluxQL.

influxdb-client does the writing, without retries: the writer decides what is tried again. It and urllib3 are imported
with the first Client, so that commands without InfluxDB start quickly and need less memory.
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
"""The body of a write that shows whether writing is allowed, and writes nothing."""

_EARLIEST, _LATEST = "1677-09-22T00:00:00Z", "2262-04-11T00:00:00Z"  # the limits of a time in ns
_DELETING_S = 600.0
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


class Unreachable(Exception):  # noqa: N818 - it is not always an error: the server may just not be up yet
    """No answer came. `message` says why. If it is `permanent`, waiting does not help (certificate, address)."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.permanent = permanent


class QueryError(Exception):
    """A query failed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    body: str
    headers: Mapping[str, str]

    def json(self) -> Any:
        """Return the body as JSON, or None when it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Series:
    """One series in the answer to a query: rows of values by column; `time` is in ms since 1970."""

    name: str
    tags: Mapping[str, str]
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Http:
    """HTTP requests to one server: certificates always checked, no redirects, no retries, limited time.

    `ca_cert` is a file with the certificate of a private authority; None uses the system's. Raises ValueError for a
    wrong URL, or a certificate that does not exist.
    """

    def __init__(self, url: str, token: str = "", *, timeout: float = 10.0, ca_cert: Path | None = None) -> None:
        import urllib3

        self.url = url.rstrip("/")
        self.address = _shown(self.url)
        if ca_cert is not None and not ca_cert.is_file():
            raise ValueError(f"there is no certificate {ca_cert}: correct HAN_INFLUX_CA_CERT")
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
        """Send a request, with `content` as JSON, and `token` in place of the usual one. Raises Unreachable.

        `read_timeout` is in seconds, for an answer that may take longer than others.
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
        """Close the connections."""
        self._pool.clear()


class Client:
    """One bucket of one InfluxDB: writes lines and runs queries.

    `url` as in http://localhost:8086. `bucket` is a bucket's name, with InfluxDB 1.8 `database` or
    `database/retention policy`, with 3 a database; `token` is a token, with 1.8 `user:password` or empty; `org` is
    needed by InfluxDB 2 only. `timeout` is in seconds, for connecting and for each answer. Raises ValueError for a
    wrong URL, or a certificate that does not exist.
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
        self._org = org or "-"  # InfluxDB 1.8 and 3 ignore it, and influxdb-client needs one
        self._timeout = timeout
        self._warned = False
        self._http = Http(url, token, timeout=timeout, ca_cert=ca_cert)
        self.address = self._http.address
        # On this computer, sending is faster than compressing.
        self._compress = urlsplit(url).hostname not in _HERE
        # Any: the type annotations of this library are not reliable
        self._influx: Any = InfluxDBClient(
            url=self._http.url,
            token=token,
            org=self._org,
            timeout=int(timeout * 1000),
            enable_gzip=False,  # done in _post, at a level that needs less CPU time
            verify_ssl=True,
            ssl_ca_cert=None if ca_cert is None else str(ca_cert),
            retries=False,
        )
        service: Any = WriteService
        self._service = service(self._influx.api_client)

    def write(self, lines: Sequence[str], *, timeout: float | None = None) -> WriteResult:
        """Write lines (times in ms) as one batch and return what became of it. Raises nothing.

        `timeout` is in seconds, if this write must end sooner than others.
        """
        return self._post("\n".join(lines), timeout)

    def can_write(self) -> WriteResult:
        """Find out whether writing to the bucket is allowed, without writing anything.

        The body is one empty line. InfluxDB 1.8.10 and 2.8.0 both check token, organisation, bucket and permission
        first, as for any write (401, 403, 404), and then answer 204 since there is nothing to do.
        """
        outcome = self._post(NOTHING, None)
        # By its documents InfluxDB 3 may answer that there is no line: then the write was allowed.
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
                gzip.compress(body.encode(), compresslevel=3, mtime=0) if self._compress else body.encode(),
                precision="ms",
                **({"content_encoding": "gzip"} if self._compress else {}),
                _request_timeout=(millis, millis),
            )
            text = ""
            if status == 204 and not _names_influx(headers):
                self._warn_unnamed()
        except ApiException as answer:
            if not answer.status:
                return _not_sent(unreachable(answer, self.address))
            status, text, headers = answer.status, answer.body or "", answer.headers or {}
        except UnicodeDecodeError:
            message = f"{self.address} answers with bytes that are not text: is HAN_INFLUX_URL right?"
            return WriteResult(Verdict.MISCONFIGURED, message)
        except (urllib3.exceptions.HTTPError, ValueError, OSError) as problem:
            return _not_sent(unreachable(problem, self.address))
        return judge(status, text, headers.get("Retry-After"), target=target, address=self.address)

    def _warn_unnamed(self) -> None:
        """Warn once that a 204 does not name InfluxDB: those of 1.8.10 and 2.8.0 do, that of a proxy may not."""
        if not self._warned:
            self._warned = True
            log.warning(
                "%s takes lines without saying that it is an InfluxDB: is HAN_INFLUX_URL right (host, port), and is "
                "there no log-in page between? What it took is no longer kept here.",
                self.address,
            )

    def version(self) -> str:
        """Return the server's version as `/ping` says it, or "". Raises Unreachable."""
        answer = self._http.request("GET", "/ping")
        if version := answer.headers.get("x-influxdb-version"):
            return clean(version.removeprefix("v"), 40)
        content = answer.json()  # InfluxDB 3 has it in the body
        return clean(str(content.get("version", "")), 40) if isinstance(content, dict) else ""

    def query(self, influxql: str, *, database: str | None = None) -> list[Series]:
        """Run an InfluxQL query; times are in ms since 1970. Raises QueryError.

        For a bucket that does not exist, or that the token may not read, InfluxDB 2.8 answers a SELECT with "database
        not found", and SHOW MEASUREMENTS with an empty list.
        """
        db, _, policy = (database or self.bucket).partition("/")
        query = {"db": db, "q": influxql, "epoch": "ms"} | ({"rp": policy} if policy else {})
        try:
            answer = self._http.request("GET", "/query", query=query)
        except Unreachable as problem:
            raise QueryError(problem.message) from problem
        content = answer.json()
        if answer.status != 200 or not isinstance(content, dict):
            reason, _ = message_in(answer.body)
            raise QueryError(f"InfluxDB at {self.address} does not answer the query: {answer.status} ({reason})")
        return _series(content)

    def delete(self, tag: str, value: str) -> None:
        """Delete every point, of all times, whose `tag` has this value. Raises QueryError.

        InfluxDB 2 has an API for this. 1.8 answers 404 to it: there the series are dropped, from every retention policy
        of the database. 2.8 was seen to return the value from SHOW TAG VALUES afterwards, unless the query has a WHERE
        that says that some tag is not ''.
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
            reason, _ = message_in(answer.body)
            raise QueryError(f"InfluxDB at {self.address} does not delete: {answer.status} ({reason})")
        content = answer.json()
        if isinstance(content, dict):
            _series(content)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._influx.close()


def quoted(text: str, mark: str = "'") -> str:
    """Return a text in quotes for InfluxQL, or with `"` for the delete API."""
    return mark + text.replace("\\", "\\\\").replace(mark, f"\\{mark}") + mark


def _series(content: Mapping[str, Any]) -> list[Series]:
    """Return the series in the body of an answer to `/query`. Raises QueryError when it reports an error."""
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
    """Return why no answer came. A connection that broke may have delivered what was sent."""
    # influxdb-client raises urllib3's SSLError, and nothing else, as an ApiException without a status
    kind, text = type(problem).__name__, str(problem).removeprefix("(0)\nReason: SSLError")
    if kind in ("SSLError", "ApiException"):
        message = f"the secure connection to {address} fails ({clean(text, 200)}): {_advice(text)}"
        return Unreachable(message, permanent=True)
    reason = {
        "NameResolutionError": "its name is not known",
        "ConnectTimeoutError": "no answer in time",
        "ReadTimeoutError": "no answer in time",
        "NewConnectionError": "connection refused" if "refused" in text else "no route to it",
    }.get(kind, "the connection broke")
    return Unreachable(f"InfluxDB at {address} cannot be reached: {reason}")


def _advice(text: str) -> str:
    """Return what to do about a certificate, from OpenSSL's message."""
    if "mismatch" in text:
        return "set HAN_INFLUX_URL to a name in its certificate, or get a certificate for this name"
    if "expired" in text or "not yet valid" in text:
        return "renew the certificate of InfluxDB, and check that the clock of this computer is right"
    if "Missing" in text or "invalid CA" in text:  # Python 3.13 and later ask for more than those before
        return "make the certificate again with what is missing in it, and that of its authority"
    return "give the certificate of the authority with HAN_INFLUX_CA_CERT, or correct http/https in HAN_INFLUX_URL"


def _shown(url: str) -> str:
    """Return the address without user and password. Raises ValueError for a wrong address."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("the address of InfluxDB (HAN_INFLUX_URL) must be like http://localhost:8086")
    return clean(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")), 200)
