"""What an answer of InfluxDB to a write means: what is wrong, and what to do about it.

The bodies are those of InfluxDB 1.8.10 (`{"error": message}`) and 2.8.0 (`{"code": ..., "message": message}`), both
tried, and of InfluxDB 3 by its documents (`{"error": message, "data": [{"error_message": …, "original_line": …}]}`).
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
"""Seconds. A server that asks for a longer pause is tried again after an hour."""

_ABOUT_LINES = re.compile(
    r"partial write|unable to parse '|field type conflict|(beyond|outside) retention|time outside range"
    r"|parse line protocol|parsing failed|line protocol (parse|pars)|schema conflict|max key size exceeded"
    r"|max-(values-per-tag|series-per-database) limit",
    re.IGNORECASE,
)
"""InfluxDB's own messages about lines. A proxy, another kind of server or a wrong address does not send these."""


def judge(status: int, body: str, retry_after: str | None, *, target: str, address: str) -> WriteResult:
    """Return what an answer to a write means. `target` and `address` name bucket and server in messages."""
    reason, is_influx = message_in(body)
    if status in (400, 413, 422) and is_influx and _ABOUT_LINES.search(reason):
        return WriteResult(Verdict.BAD_LINES, reason)
    if status == 204:
        return WriteResult(Verdict.TAKEN)
    if status == 413:
        message = f"InfluxDB at {address} finds the batch too large: fewer lines are sent at once"
        return WriteResult(Verdict.MISCONFIGURED, message, too_large=True)
    if status >= 500 and is_influx and "retention policy not found" in reason:
        return WriteResult(Verdict.MISCONFIGURED, _advice(404, reason, is_influx, target, address))
    if status == 429 or status >= 500:
        message = f"InfluxDB at {address} answers {status} ({reason})" if reason else f"{address} answers {status}"
        return WriteResult(Verdict.RETRY, message, retry_after=_seconds(retry_after))
    return WriteResult(Verdict.MISCONFIGURED, _advice(status, reason, is_influx, target, address))


def message_in(body: str) -> tuple[str, bool]:
    """Return the message in the body of an answer, as text for a log line, and whether the body is like InfluxDB's."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return clean(re.sub(r"<[^>]*>", " ", body)), False
    reason = content.get("message") or content.get("error")
    if not isinstance(reason, str):
        return clean(body), False
    data = content.get("data")
    first = data[0] if isinstance(data, list) and data else data
    if isinstance(first, dict) and isinstance(first.get("error_message"), str):
        reason = f"{reason}: {first['error_message']}"
    return clean(reason), True


def clean(text: str, longest: int = 500) -> str:
    """Return the text as one line of printable characters; if it is longer than `longest`, its beginning and its end.

    InfluxDB quotes a line that it cannot parse before it says why.
    """
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    if len(line) <= longest:
        return line
    end = longest // 3
    return f"{line[: longest - end]}…{line[-end:]}"


def _advice(status: int, reason: str, is_influx: bool, target: str, address: str) -> str:
    """Return what to fix, for an answer that is not about lines."""
    quoted = f" ({reason})" if reason else ""
    if status == 401:
        return f"InfluxDB at {address} does not know the token{quoted}: give a valid one in HAN_INFLUX_TOKEN_FILE"
    if status == 403:
        return f"the token may not write {target}{quoted}: give it permission, or another one in HAN_INFLUX_TOKEN_FILE"
    if status == 404 and is_influx:
        return (
            f"InfluxDB at {address} has no {target}{quoted}: create it, or correct HAN_INFLUX_BUCKET or HAN_INFLUX_ORG"
        )
    if 300 <= status < 400:
        return f"{address} sends writes elsewhere ({status}): set HAN_INFLUX_URL to the address it redirects to"
    if is_influx:
        return f"InfluxDB at {address} refuses to write {target}: {status}{quoted}; correct the HAN_INFLUX_… settings"
    return (
        f"{address} answers {status} as no InfluxDB does{quoted}: is HAN_INFLUX_URL right "
        "(http or https, port, no path of a web page), and is there no proxy between?"
    )


def _seconds(retry_after: str | None) -> float | None:
    """Return Retry-After in seconds: it is a number or a date (RFC 9110, 10.2.3). None when it is neither."""
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
