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

FRAME = frames_of("kaifa-3phase-norway")[0]


class Listener:
    """A source read by a thread, as `run` does."""

    def __init__(self, setting: str, **options: Any) -> None:
        self.source = SerialSource(setting, **options)
        self.stop = threading.Event()
        self.events: queue.Queue[SourceEvent] = queue.Queue()
        self.chunks: list[Chunk] = []
        self._octets = bytearray()
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> float:
        """Stop; gives the seconds that it took."""
        began = time.monotonic()
        self.stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        return time.monotonic() - began

    def expect(self, what: Happened) -> str:
        event = self.events.get(timeout=15)
        assert event.what is what, event
        return event.words

    def octets(self, count: int) -> bytes:
        with self._more:
            assert self._more.wait_for(lambda: len(self._octets) >= count, 15), bytes(self._octets)
            return bytes(self._octets)

    def _run(self) -> None:
        for chunk in self.source.chunks(self.stop, self.events.put):
            with self._more:
                self.chunks.append(chunk)
                self._octets += chunk.data
                self._more.notify_all()


class Pty:
    """A pseudo-terminal; `path` is the port, `send` the meter behind it."""

    def __init__(self) -> None:
        self._meter, port = os.openpty()
        self.path = os.ttyname(port)
        self._port = port

    def send(self, octets: bytes) -> None:
        os.write(self._meter, octets)

    def close(self) -> None:
        # Once only: by the second time the numbers may be another's.
        for descriptor in {self._port, self._meter} - {-1}:
            os.close(descriptor)
        self._port = self._meter = -1


@pytest.fixture
def pty() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.close()


@pytest.fixture
def as_nobody() -> Iterator[Callable[[], None]]:
    """Make this process one that may not open everything; root may, by any of its groups too."""
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


def test_octets_arrive_soon_and_whole(pty: Pty) -> None:
    with Listener(pty.path) as listener:
        assert f"{pty.path} (2400 8N1) is open" in listener.expect(Happened.OPENED)
        late = []
        for n in range(1, 11):
            sent = datetime.now(UTC)
            pty.send(FRAME)
            listener.octets(n * len(FRAME))
            received = listener.chunks[-1].received
            assert received is not None
            late.append((received - sent).total_seconds())
        assert listener.octets(410) == FRAME * 10
        assert sorted(late)[5] < 0.05
        assert {chunk.byte_seconds for chunk in listener.chunks} == {10 / 2400}
        assert listener.end() < 2


def test_any_line_setting_is_tolerated_on_a_pty(pty: Pty) -> None:
    with Listener(f"{pty.path}?parity=E&bits=7&stop=2&baud=115200") as listener:
        listener.expect(Happened.OPENED)
        pty.send(FRAME)
        assert listener.octets(len(FRAME)) == FRAME


def test_every_octet_passes_unchanged(pty: Pty) -> None:
    with Listener(pty.path) as listener:
        listener.expect(Happened.OPENED)
        pty.send(bytes(range(256)))
        assert listener.octets(256) == bytes(range(256))


def test_unplugged_and_back_under_another_number(pty: Pty, tmp_path: Path) -> None:
    link = tmp_path / "ttyMETER"
    link.symlink_to(pty.path)
    with Listener(str(link)) as listener:
        listener.expect(Happened.OPENED)
        pty.send(FRAME)
        listener.octets(len(FRAME))
        link.unlink()
        pty.close()
        assert "unplugged" in listener.expect(Happened.LOST)
        assert "no such port" in listener.expect(Happened.MISSING)
        other = Pty()
        link.symlink_to(other.path)
        listener.expect(Happened.OPENED)
        other.send(FRAME)
        assert listener.octets(2 * len(FRAME)) == FRAME * 2
        assert listener.source.name == "ttyMETER"
        listener.end()
        other.close()


def test_a_silent_port_is_told_and_read_on(pty: Pty) -> None:
    with Listener(f"{pty.path}?silence=1") as listener:
        listener.expect(Happened.OPENED)
        assert "no octet came for 1 s" in listener.expect(Happened.SILENT)
        time.sleep(1.5)
        assert listener.events.empty()
        pty.send(FRAME)
        assert "octets come again" in listener.expect(Happened.OPENED)
        assert listener.octets(len(FRAME)) == FRAME


def test_another_program_on_the_port_is_named(pty: Pty) -> None:
    hold = "import serial, sys; p = serial.Serial(sys.argv[1], exclusive=True); print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, pty.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    with holder:
        holder.stdout.readline()
        with Listener(pty.path) as listener:
            words = listener.expect(Happened.MISSING)
            assert f"(process {holder.pid})" in words
            assert f"holds {pty.path}; only one program can read a port: stop it" in words
            holder.stdin.close()
            listener.expect(Happened.OPENED)
            pty.send(FRAME)
            assert listener.octets(len(FRAME)) == FRAME


def test_the_same_port_twice_is_said_to_be_that(pty: Pty) -> None:
    with Listener(pty.path) as first:
        first.expect(Happened.OPENED)
        with Listener(pty.path) as second:
            assert "already read by this very process" in second.expect(Happened.MISSING)


def test_no_permission_names_the_group_and_is_mended_by_giving_it(pty: Pty, as_nobody: Callable[[], None]) -> None:
    mode = os.stat(pty.path).st_mode  # noqa: PTH116
    group = os.stat(pty.path).st_gid  # noqa: PTH116
    os.chmod(pty.path, 0o060)  # noqa: PTH101
    as_nobody()
    with Listener(pty.path) as listener:
        words = listener.expect(Happened.MISSING)
        assert "no permission to open" in words
        import grp

        assert grp.getgrgid(group).gr_name in words
        with suppress(PermissionError):
            os.seteuid(0)
        os.chmod(pty.path, mode & 0o777 | 0o600)  # noqa: PTH101
        listener.expect(Happened.OPENED)
        pty.send(FRAME)
        assert listener.octets(len(FRAME)) == FRAME


@contextmanager
def flooding(send: Callable[[bytes], None], octets: bytes) -> Iterator[threading.Event]:
    """Send without end, as fast as it is taken; what it ends by may wake the sender."""
    done = threading.Event()

    def flood() -> None:
        with suppress(OSError):
            while not done.is_set():
                send(octets)

    flooder = threading.Thread(target=flood, daemon=True)
    flooder.start()
    try:
        yield done
    finally:
        done.set()


def test_a_flood_is_read_in_pieces_slowly_and_stopping_still_works(pty: Pty) -> None:
    with Listener(pty.path) as listener, flooding(pty.send, b"\x55" * 1024):
        listener.expect(Happened.OPENED)
        assert "floods: " in listener.expect(Happened.NO_FRAMES)
        began, used = time.monotonic(), time.process_time()
        so_far = len(listener.octets(0))
        listener.octets(so_far + RATE)
        listener.octets(so_far + 2 * RATE)
        seconds = time.monotonic() - began
        assert seconds > 1.5
        assert (time.process_time() - used) / seconds < 0.5
        assert listener.end() < 2
        assert max(len(chunk.data) for chunk in listener.chunks) <= 4096
        assert listener.events.empty()


def test_a_flood_of_frames_is_read_as_fast_as_they_come(pty: Pty) -> None:
    with Listener(pty.path) as listener, flooding(pty.send, FRAME * 20):
        listener.expect(Happened.OPENED)
        listener.octets(4 * ALLOWED)
        assert listener.end() < 2
        assert listener.events.empty()


# --- over a network


@contextmanager
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(15)
        yield listening


def test_a_tcp_port_that_hangs_up_is_called_again() -> None:
    with server() as listening:
        port = listening.getsockname()[1]
        with Listener(f"socket://127.0.0.1:{port}") as listener:
            for n in (1, 2):
                peer, _ = listening.accept()
                with peer:
                    if n == 1:
                        listener.expect(Happened.OPENED)
                    peer.sendall(FRAME)
                    listener.octets(n * len(FRAME))
                if n == 1:
                    assert "cut the connection" in listener.expect(Happened.LOST)
            listener.expect(Happened.OPENED)
            assert {chunk.byte_seconds for chunk in listener.chunks} == {0.0}
            assert len(listener.chunks) < 20  # not octet by octet


def test_what_a_socket_brings_first_is_kept() -> None:
    with server() as listening:
        port = listening.getsockname()[1]
        with Listener(f"socket://127.0.0.1:{port}") as listener:
            peer, _ = listening.accept()
            with peer:
                peer.sendall(FRAME)  # at once, while the other side still opens
                assert listener.octets(len(FRAME)) == FRAME


def test_nobody_listens() -> None:
    with server() as listening:
        port = listening.getsockname()[1]
    with Listener(f"socket://127.0.0.1:{port}") as listener:
        assert f"nothing listens at 127.0.0.1:{port}" in listener.expect(Happened.MISSING)
        assert listener.end() < 1


class Rfc2217Server:
    """One connection of an RFC 2217 server in front of pyserial's loop://."""

    def __init__(self, peer: socket.socket) -> None:
        self.device = serial.serial_for_url("loop://", timeout=0)
        self._peer = peer
        # The stubs ask for less than it takes: any pyserial port, and anything that can write.
        self._manager = rfc2217.PortManager(cast(rfc2217.Serial, self.device), cast(rfc2217.Serial, self))
        threading.Thread(target=self._answer, daemon=True).start()

    def write(self, octets: bytes) -> None:
        self._peer.sendall(octets)

    def send(self, octets: bytes) -> None:
        self.write(b"".join(self._manager.escape(octets)))

    def _answer(self) -> None:
        with suppress(OSError):
            while data := self._peer.recv(1024):
                for _ in self._manager.filter(data):
                    pass


def test_rfc2217_sets_the_far_ends_line() -> None:
    with server() as listening:
        port = listening.getsockname()[1]
        with Listener(f"rfc2217://127.0.0.1:{port}?parity=E&baud=9600") as listener:
            peer, _ = listening.accept()
            with peer:
                far = Rfc2217Server(peer)
                listener.expect(Happened.OPENED)
                assert (far.device.baudrate, far.device.parity) == (9600, "E")
                octets = bytes(range(256)) + FRAME
                far.send(octets)
                assert listener.octets(len(octets)) == octets
                peer.shutdown(socket.SHUT_RDWR)
            assert "cut the connection" in listener.expect(Happened.LOST)


def test_loop() -> None:
    made: list[Any] = []

    def opener(*args: Any, **options: Any) -> Any:
        made.append(serial.serial_for_url(*args, **options))
        return made[-1]

    with Listener("loop://", opener=opener) as listener:
        listener.expect(Happened.OPENED)
        made[0].write(FRAME)
        assert listener.octets(len(FRAME)) == FRAME
        assert listener.end() < 2.5
