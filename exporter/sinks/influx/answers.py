"""What an answer of InfluxDB to a write means: whose fault it is, and what to do about it.

The bodies are those of InfluxDB 1.8.10 (`{"error": words}`), 2.8.0 (`{"code": ..., "message": words}`), both tried,
and of InfluxDB 3 by its documents (`{"error": words, "data": [{"error_message": ..., "original_line": ...}]}`).
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from exporter.sinks.contract import Verdict, WriteResult

__all__ = ["clean", "judge", "message_in"]

LONGEST_RETRY_AFTER = 3600.0
"""Seconds. A server that asks for more than an hour is asked again after an hour."""

_ABOUT_LINES = re.compile(
    r"partial write|unable to parse '|field type conflict|(beyond|outside) retention|time outside range"
    r"|parse line protocol|parsing failed|line protocol (parse|pars)|schema conflict|max key size exceeded"
    r"|max-(values-per-tag|series-per-database) limit",
    re.IGNORECASE,
)
"""InfluxDB's own words about lines. A proxy, a server of another kind or a wrong address does not say these."""


def judge(status: int, body: str, retry_after: str | None, *, target: str, address: str) -> WriteResult:
    """Read an answer to a write. `target` names the bucket and `address` the server, in sentences."""
    said, is_influx = message_in(body)
    if status in (400, 413, 422) and is_influx and _ABOUT_LINES.search(said):
        return WriteResult(Verdict.BAD_LINES, said)
    if status == 204:
        return WriteResult(Verdict.TAKEN)
    if status == 413:
        words = f"InfluxDB at {address} finds the batch too large; sending fewer lines at once"
        return WriteResult(Verdict.MISCONFIGURED, words, too_large=True)
    if status >= 500 and is_influx and "retention policy not found" in said:
        return WriteResult(Verdict.MISCONFIGURED, _advice(404, said, is_influx, target, address))
    if status == 429 or status >= 500:
        words = f"InfluxDB at {address} answers {status} ({said})" if said else f"{address} answers {status}"
        return WriteResult(Verdict.RETRY, words, retry_after=_seconds(retry_after))
    return WriteResult(Verdict.MISCONFIGURED, _advice(status, said, is_influx, target, address))


def message_in(body: str) -> tuple[str, bool]:
    """The server's words in an answer's body, fit for a log line; and whether they have the form of InfluxDB's."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return clean(re.sub(r"<[^>]*>", " ", body)), False
    said = content.get("message") or content.get("error")
    if not isinstance(said, str):
        return clean(body), False
    data = content.get("data")
    first = data[0] if isinstance(data, list) and data else data
    if isinstance(first, dict) and isinstance(first.get("error_message"), str):
        said = f"{said}: {first['error_message']}"
    return clean(said), True


def clean(text: str, longest: int = 500) -> str:
    """One line of printable text of about `longest` characters: of a longer one beginning and end.

    InfluxDB quotes a line that it cannot parse before it says why.
    """
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    if len(line) <= longest:
        return line
    end = longest // 3
    return f"{line[: longest - end]}…{line[-end:]}"


def _advice(status: int, said: str, is_influx: bool, target: str, address: str) -> str:
    """What to mend, for an answer that is not about lines."""
    quoted = f" ({said})" if said else ""
    if status == 401:
        return f"InfluxDB at {address} does not know the token{quoted}: set HAN_INFLUX_TOKEN to one that may write"
    if status == 403:
        return f"the token may not write {target}{quoted}: give it the right to, or set HAN_INFLUX_TOKEN to another"
    if status == 404 and is_influx:
        return f"InfluxDB at {address} has no {target}{quoted}: create it, or mend HAN_INFLUX_BUCKET or HAN_INFLUX_ORG"
    if 300 <= status < 400:
        return f"{address} sends writes elsewhere ({status}): set HAN_INFLUX_URL to the address it redirects to"
    if is_influx:
        return (
            f"InfluxDB at {address} refuses the write to {target} with {status}{quoted}: mend the HAN_INFLUX_… settings"
        )
    return (
        f"{address} answers {status} as no InfluxDB does{quoted}: is HAN_INFLUX_URL right "
        "(http or https, port, no path of a web page), and is no proxy in between?"
    )


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds: a number or a date (RFC 9110, 10.2.3); None when it is neither."""
    if not retry_after:
        return None
    try:
        wait = float(retry_after)
    except ValueError:
        try:
            wait = (parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(wait) else min(max(wait, 0.0), LONGEST_RETRY_AFTER)
