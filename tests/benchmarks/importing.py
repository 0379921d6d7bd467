"""(d) `import` into a real influxd, as a ratio to posting the same lines with a bare HTTP client; (g) how it grows.

A first run of `import` posts to a server that only records. The bare client then posts the same batches, over the same
number of connections, and needs no time to make them. Needs influxd 1.8 on PATH.
"""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from tests.benchmarks import child
from tests.benchmarks.capture import Capture
from tests.benchmarks.figures import Effort, Figure
from tests.support.influx_server import LocalInflux

AIM: Final = 0.5
_ANSWER_S: Final = 0.01
"""How long the recorder takes for a batch. If it answered at once, a second connection would have no work."""
_PROBE: Final = 3000
_QUICK_S: Final = 1.2
_LEAST: Final = 0.5
"""Seconds of writing below which a ratio says little."""


class Recorder(ThreadingHTTPServer):
    """Takes every write and keeps its lines in a file. It has no hours that were stored before."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Recording)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.batches: list[tuple[int, int]] = []  # where each begins in the file, and its size
        self.connections: set[Any] = set()
        self._file = path.open("wb+")
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def keep(self, batch: bytes, connection: Any) -> None:
        """Record one write, and the connection that it came over."""
        with self._lock:
            self.connections.add(connection)
            self.batches.append((self._file.tell(), len(batch)))
            self._file.write(batch)

    def all_batches(self) -> list[bytes]:
        """What was written, in order."""
        self._file.seek(0)
        return [self._file.read(size) for _, size in self.batches]

    def close(self) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()
        self._file.close()


class _Recording(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path.startswith("/api/v2/write"):
            time.sleep(_ANSWER_S)
            self.server.keep(body, self.client_address)
            self._answer(204, b"")
        else:
            self._answer(200, json.dumps({"results": [{"statement_id": 0}]}).encode())

    def do_GET(self) -> None:
        self.do_POST()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def run(effort: Effort) -> Iterator[Figure]:
    """All of (d), and (g) of it."""
    program = shutil.which("influxd")
    if program is None:
        yield Figure("import: to bare posting", None, "x", AIM, note="influxd (1.8) is not on PATH")
        return
    folder = effort.folder / "influx"
    folder.mkdir()
    capture = Capture(effort.folder / "import.raw")
    influx = LocalInflux(program, folder)
    try:
        yield from _measured(influx, capture, effort)
    finally:
        influx.stop()
        shutil.rmtree(folder)
        capture.path.unlink()


def _measured(influx: LocalInflux, capture: Capture, effort: Effort) -> Iterator[Figure]:
    peaks: list[float] = []
    compared_at = _quick_size(influx, capture) if effort.quick else effort.of(0, 200_000, 400_000)
    sizes = [compared_at] if effort.quick else [1000, 10_000, *([1_000_000, 10_000_000] * effort.full)]
    for count in sorted({*sizes, compared_at}):
        capture.grow_to(count)
        name, ratio = f"import, {count:,} frames", list[Figure]()
        if count == compared_at:
            ran, ratio = _compared(influx, capture, effort)
        else:
            ran = _import(influx, capture)
        peaks.append(ran.peak_mb)
        yield Figure(f"{name}: into influxd", count / ran.wall_s, "frames/s", note=f"{ran.wall_s:.2f} s")
        yield Figure(f"{name}: peak memory", ran.peak_mb, "MB")
        yield from ratio
    if len(peaks) > 1:
        grown = peaks[-1] - peaks[-2]
        yield Figure("import: peak memory more than at the size before", grown, "MB", 10, at_most=True)


def _quick_size(influx: LocalInflux, capture: Capture) -> int:
    """Fewer frames where many would take a minute."""
    capture.grow_to(_PROBE)
    return 10 * _PROBE if _import(influx, capture).wall_s < _QUICK_S else 2 * _PROBE


def _compared(influx: LocalInflux, capture: Capture, effort: Effort) -> tuple[child.Ran, list[Figure]]:
    """An import and the bare client in turn; the best of each."""
    batches, connections = _batches(influx, capture, effort)
    bare, ran = [], []
    for _ in range(2):
        bare.append(_post(influx, batches, connections))
        ran.append(_import(influx, capture))
    seconds, best = min(bare), min(ran, key=lambda one: one.wall_s)
    lines = sum(batch.count(b"\n") + 1 for batch in batches)
    over = f"{connections} connection{'s' * (connections != 1)}"
    note = f"{lines:,} lines in {seconds:.2f} s over {over}"
    busy = f"{_warning(seconds)}processors: {best.processor_s / best.wall_s:.2f} of them busy in import"
    return best, [
        Figure("bare HTTP client, the same batches", lines / seconds, "lines/s", note=note),
        Figure("import: to bare posting", seconds / best.wall_s, "x", AIM, note=busy, compared=True),
    ]


def _warning(seconds: float) -> str:
    """A warning if the times of a ratio are short."""
    return "" if seconds >= _LEAST else f"short ({seconds:.2f} s); "


def _command(capture: Capture) -> list[str]:
    return [child.PROGRAM, "import", str(capture.path)]


def _settings(url: str, capture: Capture, influx: LocalInflux) -> dict[str, str]:
    outbox = capture.path.with_suffix(".sqlite")
    for old in outbox.parent.glob(f"{outbox.name}*"):
        old.unlink()
    return {
        "HAN_INFLUX_URL": url,
        "HAN_INFLUX_TOKEN": influx.token,
        "HAN_INFLUX_BUCKET": influx.bucket,
        "HAN_OUTBOX": str(outbox),
    }


def _import(influx: LocalInflux, capture: Capture) -> child.Ran:
    _empty(influx)
    return child.run(_command(capture), _settings(influx.url, capture, influx))


def _empty(influx: LocalInflux) -> None:
    influx.admin(f"DROP DATABASE {influx.bucket}")
    influx.admin(f"CREATE DATABASE {influx.bucket}")


def _batches(influx: LocalInflux, capture: Capture, effort: Effort) -> tuple[list[bytes], int]:
    """What an import posts, and over how many connections."""
    recorder = Recorder(effort.folder / "batches")
    try:
        child.run(_command(capture), _settings(recorder.url, capture, influx))
        return recorder.all_batches(), len(recorder.connections)
    finally:
        recorder.close()


def _post(influx: LocalInflux, batches: list[bytes], connections: int) -> float:
    _empty(influx)
    waiting, failed = iter(batches), []
    lock = threading.Lock()
    query = urlencode({"org": influx.org, "bucket": influx.bucket, "precision": "ms"})
    headers = {"Authorization": f"Token {influx.token}", "Content-Type": "text/plain; charset=utf-8"}

    def post() -> None:
        connection = http.client.HTTPConnection(urlsplit(influx.url).netloc)
        while True:
            with lock:
                batch = next(waiting, None)
            if batch is None:
                break
            connection.request("POST", f"/api/v2/write?{query}", body=batch, headers=headers)
            answer = connection.getresponse()
            words = answer.read()
            if answer.status != 204:
                failed.append(f"{answer.status}: {words[:200]!r}")
                break
        with suppress(OSError):
            connection.close()

    threads = [threading.Thread(target=post) for _ in range(connections)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(f"InfluxDB did not take the lines: {failed[0]}")
    return time.monotonic() - began
