"""SerialSource on real ports: pseudo-terminals, TCP, RFC 2217."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import serial
from serial import rfc2217

from exporter.sources.contract import Chunk, Happened, SourceEvent
from exporter.sources.serial.flood import ALLOWED, RATE
from exporter.sources.serial.serial_port import SerialSource
from tests.support.octets import frames_of
from tests.support.patience import HANG_S, Patience, quiet_seconds

FRAME = frames_of("kaifa-3phase-norway")[0]


class Listener:
    """A source read by a thread, as `run` does."""

    def __init__(self, url: str, **options: Any) -> None:
        self.source = SerialSource(url, **options)
        self.stop = threading.Event()
        self.events: queue.Queue[SourceEvent] = queue.Queue()
        self.chunks: list[Chunk] = []
        self._data = bytearray()
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> float:
        """Stop; returns the seconds that it took, as on a quiet machine."""
        patience = Patience(HANG_S)
        self.stop.set()
        self._thread.join(HANG_S)
        assert not self._thread.is_alive()
        return quiet_seconds(patience.waited())

    def expect(self, what: Happened) -> str:
        event = self.events.get(timeout=HANG_S)
        assert event.what is what, event
        return event.message

    def read(self, count: int) -> bytes:
        """All bytes so far, as soon as there are `count`."""
        with self._more:
            assert self._more.wait_for(lambda: len(self._data) >= count, HANG_S), bytes(self._data)
            return bytes(self._data)

    def _run(self) -> None:
        for chunk in self.source.chunks(self.stop, self.events.put):
            with self._more:
                self.chunks.append(chunk)
                self._data += chunk.data
                self._more.notify_all()


class Pty:
    """A pseudo-terminal; `path` is the port, and `send` sends what a meter sends."""

    def __init__(self) -> None:
        self.meter, port = os.openpty()
        self.path = os.ttyname(port)
        self._port = port

    def send(self, data: bytes) -> None:
        os.write(self.meter, data)

    def close(self) -> None:
        # Only once: later the same numbers may be other files.
        for descriptor in {self._port, self.meter} - {-1}:
            os.close(descriptor)
        self._port = self.meter = -1


@pytest.fixture
def pty() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.close()


@pytest.fixture
def as_nobody() -> Iterator[Callable[[], None]]:
    """Remove the rights of root from this process, which could open any port, also by its groups."""
    user, group, groups = os.geteuid(), os.getegid(), os.getgroups()

    def drop() -> None:
        if user == 0:
            os.setgroups([])
            os.setegid(65534)
            os.seteuid(65534)

    yield drop
    os.seteuid(user)
    os.setegid(group)
    if user == 0:
        os.setgroups(groups)


def test_bytes_arrive_soon_and_whole(pty: Pty) -> None:
    with Listener(pty.path) as listener:
        assert f"{pty.path} (2400 8N1)" in listener.expect(Happened.OPENED)
        late = []
        for n in range(1, 11):
            sent = datetime.now(UTC)
            pty.send(FRAME)
            listener.read(n * len(FRAME))
            received = listener.chunks[-1].received
            assert received is not None
            late.append((received - sent).total_seconds())
        assert listener.read(410) == FRAME * 10
        assert sorted(late)[5] < 0.05
        assert {chunk.byte_seconds for chunk in listener.chunks} == {10 / 2400}
        assert listener.end() < 2


def test_any_settings_are_accepted_for_a_pty(pty: Pty) -> None:
    with Listener(f"{pty.path}?parity=E&bits=7&stop=2&baud=115200") as listener:
        listener.expect(Happened.OPENED)
        pty.send(FRAME)
        assert listener.read(len(FRAME)) == FRAME


def test_every_byte_is_read_unchanged(pty: Pty) -> None:
    with Listener(pty.path) as listener:
        listener.expect(Happened.OPENED)
        pty.send(bytes(range(256)))
        assert listener.read(256) == bytes(range(256))


def test_unplugged_and_back_under_another_number(pty: Pty, tmp_path: Path) -> None:
    link = tmp_path / "ttyMETER"
    link.symlink_to(pty.path)
    with Listener(str(link)) as listener:
        listener.expect(Happened.OPENED)
        pty.send(FRAME)
        listener.read(len(FRAME))
        link.unlink()
        pty.close()
        assert "unplugged" in listener.expect(Happened.LOST)
        assert str(link) in listener.expect(Happened.MISSING)
        other = Pty()
        link.symlink_to(other.path)
        listener.expect(Happened.OPENED)
        other.send(FRAME)
        assert listener.read(2 * len(FRAME)) == FRAME * 2
        assert listener.source.name == "ttyMETER"
        listener.end()
        other.close()


def test_a_silent_port_is_reported_and_read_again(pty: Pty) -> None:
    with Listener(f"{pty.path}?silence=1") as listener:
        listener.expect(Happened.OPENED)
        assert " 1 s" in listener.expect(Happened.SILENT)
        time.sleep(1.5)
        assert listener.events.empty()
        pty.send(FRAME)
        listener.expect(Happened.OPENED)
        assert listener.read(len(FRAME)) == FRAME


def test_another_program_on_the_port_is_named(pty: Pty) -> None:
    hold = "import serial, sys; p = serial.Serial(sys.argv[1], exclusive=True); print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, pty.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    with holder:
        holder.stdout.readline()
        with Listener(pty.path) as listener:
            message = listener.expect(Happened.MISSING)
            assert f"(process {holder.pid})" in message
            assert pty.path in message
            holder.stdin.close()
            listener.expect(Happened.OPENED)
            pty.send(FRAME)
            assert listener.read(len(FRAME)) == FRAME


def test_the_same_port_twice_is_reported_as_that(pty: Pty) -> None:
    with Listener(pty.path) as first:
        first.expect(Happened.OPENED)
        with Listener(pty.path) as second:
            assert "this process" in second.expect(Happened.MISSING)


def test_no_permission_names_the_group_and_can_be_given_while_running(pty: Pty, as_nobody: Callable[[], None]) -> None:
    mode = os.stat(pty.path).st_mode  # noqa: PTH116
    group = os.stat(pty.path).st_gid  # noqa: PTH116
    os.chmod(pty.path, 0o060)  # noqa: PTH101
    as_nobody()
    with Listener(pty.path) as listener:
        message = listener.expect(Happened.MISSING)
        assert "no permission" in message
        import grp

        assert grp.getgrgid(group).gr_name in message
        with suppress(PermissionError):
            os.seteuid(0)
        os.chmod(pty.path, mode & 0o777 | 0o600)  # noqa: PTH101
        listener.expect(Happened.OPENED)
        pty.send(FRAME)
        assert listener.read(len(FRAME)) == FRAME


@contextmanager
def flooding(send: Callable[[bytes], None], data: bytes) -> Iterator[threading.Event]:
    """Send without end, as fast as the reader takes it."""
    done = threading.Event()

    def flood() -> None:
        with suppress(OSError):
            while not done.is_set():
                send(data)

    flooder = threading.Thread(target=flood, daemon=True)
    flooder.start()
    try:
        yield done
    finally:
        done.set()


def test_a_flood_is_read_in_pieces_slowly_and_stopping_still_works(pty: Pty) -> None:
    with Listener(pty.path) as listener, flooding(pty.send, b"\x55" * 1024):
        listener.expect(Happened.OPENED)
        assert "floods" in listener.expect(Happened.NO_FRAMES)
        began, used = time.monotonic(), time.process_time()
        so_far = len(listener.read(0))
        listener.read(so_far + RATE)
        listener.read(so_far + 2 * RATE)
        seconds = time.monotonic() - began
        assert seconds > 1.5
        assert (time.process_time() - used) / seconds < 0.5
        assert listener.end() < 2
        assert max(len(chunk.data) for chunk in listener.chunks) <= 4096
        assert listener.events.empty()


def test_a_flood_of_frames_is_read_as_fast_as_they_come(pty: Pty) -> None:
    with Listener(pty.path) as listener, flooding(pty.send, FRAME * 20):
        listener.expect(Happened.OPENED)
        listener.read(4 * ALLOWED)
        assert listener.end() < 2
        assert listener.events.empty()


# --- over a network


@contextmanager
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(HANG_S)
        yield listening


def test_a_tcp_port_that_hangs_up_is_connected_again() -> None:
    with server() as listening:
        port = listening.getsockname()[1]
        with Listener(f"socket://127.0.0.1:{port}") as listener:
            for n in (1, 2):
                peer, _ = listening.accept()
                with peer:
                    if n == 1:
                        listener.expect(Happened.OPENED)
                    peer.sendall(FRAME)
                    listener.read(n * len(FRAME))
                if n == 1:
                    assert "connection" in listener.expect(Happened.LOST)
            listener.expect(Happened.OPENED)
            assert {chunk.byte_seconds for chunk in listener.chunks} == {0.0}
            assert len(listener.chunks) < 20  # not byte by byte


def test_the_first_bytes_of_a_socket_are_kept() -> None:
    with server() as listening:
        port = listening.getsockname()[1]
        with Listener(f"socket://127.0.0.1:{port}") as listener:
            peer, _ = listening.accept()
            with peer:
                peer.sendall(FRAME)  # at once, while the other side is still opening
                assert listener.read(len(FRAME)) == FRAME


def test_nobody_listens() -> None:
    with server() as listening:
        port = listening.getsockname()[1]
    with Listener(f"socket://127.0.0.1:{port}") as listener:
        assert f"nothing listens at 127.0.0.1:{port}" in listener.expect(Happened.MISSING)
        assert listener.end() < 1


class Rfc2217Server:
    """One connection of an RFC 2217 server with pyserial's loop:// as its port."""

    def __init__(self, peer: socket.socket) -> None:
        self.device = serial.serial_for_url("loop://", timeout=0)
        self._peer = peer
        # The type stubs are too narrow: it takes any pyserial port, and anything that can write.
        self._manager = rfc2217.PortManager(cast(rfc2217.Serial, self.device), cast(rfc2217.Serial, self))
        threading.Thread(target=self._answer, daemon=True).start()

    def write(self, data: bytes) -> None:
        self._peer.sendall(data)

    def send(self, data: bytes) -> None:
        self.write(b"".join(self._manager.escape(data)))

    def _answer(self) -> None:
        with suppress(OSError):
            while data := self._peer.recv(1024):
                for _ in self._manager.filter(data):
                    pass


def test_rfc2217_configures_the_far_end() -> None:
    with server() as listening:
        port = listening.getsockname()[1]
        with Listener(f"rfc2217://127.0.0.1:{port}?parity=E&baud=9600") as listener:
            peer, _ = listening.accept()
            with peer:
                far = Rfc2217Server(peer)
                listener.expect(Happened.OPENED)
                assert (far.device.baudrate, far.device.parity) == (9600, "E")
                data = bytes(range(256)) + FRAME
                far.send(data)
                assert listener.read(len(data)) == data
                peer.shutdown(socket.SHUT_RDWR)
            assert "connection" in listener.expect(Happened.LOST)


def test_loop() -> None:
    made: list[Any] = []

    def opener(*args: Any, **options: Any) -> Any:
        made.append(serial.serial_for_url(*args, **options))
        return made[-1]

    with Listener("loop://", opener=opener) as listener:
        listener.expect(Happened.OPENED)
        made[0].write(FRAME)
        assert listener.read(len(FRAME)) == FRAME
        assert listener.end() < 2.5
