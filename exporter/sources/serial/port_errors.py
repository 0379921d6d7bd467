"""Why a port cannot be opened or read, with messages that say what to do about it."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from exporter.sources.contract import Happened, SourceError
from exporter.sources.serial.adapters import serial_ports
from exporter.sources.serial.serial_url import SerialSettings, SerialUrl

__all__ = ["PortError", "cannot_configure", "cannot_open", "check_kind", "errno_of", "holders", "lost"]


class PortError(Exception):
    """A port that cannot be used now, but perhaps later.

    `what` is MISSING, LOST or SILENT. `kind` is short and the same for the same cause, so that each cause is reported
    once. `explain` makes the message. It may have to look at every process, so call it only for a report.
    """

    def __init__(self, what: Happened, kind: str, explain: Callable[[], str]) -> None:
        super().__init__(kind)
        self.what = what
        self.kind = kind
        self.explain = explain

    def __str__(self) -> str:
        return self.explain()


def errno_of(error: BaseException) -> int | None:
    """The operating system's number of an error; pyserial often has it only in the error that it caught."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, termios.error) and seen.args and isinstance(seen.args[0], int):
            return seen.args[0]
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen.errno
        seen = seen.__cause__ or seen.__context__
    return None


def check_kind(path: str) -> None:
    """Raise SourceError for a path that exists and can never be a port: a directory, an ordinary file."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (Path would normalise the configured text)
    except (OSError, ValueError):
        return  # missing now, perhaps not later
    if stat.S_ISDIR(mode):
        raise SourceError(
            f"{path} is a directory, not a port; name the port in it, for example {path.rstrip('/')}/ttyUSB0"
        )
    if stat.S_ISREG(mode):
        raise SourceError(
            f"{path} is an ordinary file, not a port; to read a capture write file:{path}"
            + (
                " (a file has taken the name of the port: remove it and plug the adapter in again)"
                if path.startswith("/dev/")
                else ""
            )
        )
    if not stat.S_ISCHR(mode):
        raise SourceError(f"{path} is not a serial port; name one, for example /dev/ttyUSB0")


def cannot_open(url: SerialUrl, error: Exception) -> PortError | SourceError:
    """What an error in opening means: PortError if it may pass, SourceError if it never can."""
    number = errno_of(error)
    place = url.path or url.address
    if isinstance(error, ValueError) or str(error).startswith("expected a string in the form"):
        return SourceError(_unusable(url, error))
    if url.is_network:
        return PortError(Happened.MISSING, f"network {number}", lambda: _unreachable(url, error))
    if number == errno.ENOTTY:
        return SourceError(f"{place} is not a serial port; name one, for example /dev/ttyUSB0")
    if number in (errno.EACCES, errno.EPERM):
        return PortError(Happened.MISSING, "permission", lambda: _no_permission(place, number))
    if number in (errno.EBUSY, errno.EAGAIN):
        return PortError(Happened.MISSING, "busy", lambda: _busy(place))
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV) or url.scheme == "hwgrep":
        return PortError(Happened.MISSING, "missing", lambda: _missing(place))
    if number == errno.EINVAL:
        return PortError(
            Happened.MISSING, "settings", lambda: f"{place} cannot be set to {url.settings}; try other settings"
        )
    return PortError(Happened.MISSING, f"error {number}", lambda: _broken(place, number, error))


def cannot_configure(url: SerialUrl, settings: SerialSettings, error: Exception) -> PortError:
    """What an error in setting an open port means: of kind "settings" if the port cannot be set so, else LOST."""
    number = errno_of(error)
    if isinstance(error, ValueError) or number == errno.EINVAL or (number is None and "parameter" in str(error)):
        place = url.path or url.address
        return PortError(Happened.MISSING, "settings", lambda: f"{place} cannot be set to {settings}: {_plain(error)}")
    return lost(url, error)


def lost(url: SerialUrl, error: Exception) -> PortError:
    """Reading an open port failed."""

    def explain() -> str:
        if url.is_network:
            return f"{url.name} cut the connection ({_plain(error)}); connecting again"
        if url.path is not None and not Path(url.path).exists():
            return f"{url.path} has disappeared: unplugged? It is opened again when it comes back"
        others = ", ".join(holders(url.path)) if url.path is not None else ""
        if others:
            return f"reading {url.path} failed; {others} reads the same port and takes bytes away: stop it"
        return f"reading {url.path or url.address} failed ({_plain(error)}); opening it again"

    return PortError(Happened.LOST, "lost", explain)


def _ports() -> str:
    """The serial ports that this machine has, for the end of a message."""
    found = serial_ports()
    if not found:
        return "this machine has no serial port now" + _container_hint("mount /dev into it")
    named = (p.device + (f" ({p.description})" if p.description not in (None, "n/a") else "") for p in found)
    return "ports of this machine: " + ", ".join(named)


def holders(path: str) -> list[str]:
    """Other programs that have the device open, as `minicom (process 1234)`, if this user may see them (proc(5))."""
    try:
        device = os.stat(path).st_rdev  # noqa: PTH116
    except (OSError, ValueError):
        return []
    me = os.getpid()
    return [_process_name(pid) for pid in _processes_with(device) if pid != me]


def _processes_with(device: int) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end at any moment, or belong to another user: then it is not named.
        with suppress(OSError):
            if any(_is_device(entry, device) for entry in (process / "fd").iterdir()):
                yield int(process.name)


def _is_device(entry: Path, device: int) -> bool:
    try:
        found = entry.stat()
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == device


def _process_name(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        name = "a program that has ended"
    return f"{name} (process {pid})"


def _busy(path: str) -> str:
    who = ", ".join(holders(path))
    if not who and _held_here(path):
        return f"this process already reads {path}: is it twice in HAN_SOURCE?"
    return f"{who or 'another program'} has {path} open; only one program can read a port: stop it"


def _held_here(path: str) -> bool:
    with suppress(OSError):
        device = os.stat(path).st_rdev  # noqa: PTH116
        return any(_is_device(entry, device) for entry in Path("/proc/self/fd").iterdir())
    return False


def _missing(place: str) -> str:
    return f"no such port: {place}; is the adapter plugged in? ({_ports()})"


def _no_permission(path: str, number: int | None) -> str:
    if number == errno.EPERM:
        return f"not allowed to open {path}" + _container_hint("give it the device (devices: or device_cgroup_rules:)")
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return f"no permission to open {path} or to look at it; run as a user who has it"
    user = _user()
    if found.st_mode & 0o060 != 0o060:
        return (
            f"no permission to open {path}: only {_name_of(pwd.getpwuid, found.st_uid)} has it "
            f'(mode {stat.S_IMODE(found.st_mode):o}); write a udev rule with GROUP="dialout", MODE="0660"'
        )
    group = _name_of(grp.getgrgid, found.st_gid)
    gid = found.st_gid
    hint = _container_hint(
        f'set HAN_COMPOSE_DIALOUT_GID={gid} in .env (in a Compose file of your own: group_add: ["{gid}"])'
    )
    if hint:
        return f"no permission to open {path}: it belongs to group {group}{hint}"
    with suppress(KeyError):
        if user in grp.getgrgid(found.st_gid).gr_mem:
            return (
                f"no permission to open {path}: {user} was added to group {group} after this program was started: "
                "log in again (or restart the service)"
            )
    return (
        f"no permission to open {path}: add the user to group {group}: sudo usermod -aG {group} {user} and log in again"
    )


def _user() -> str:
    return _name_of(pwd.getpwuid, os.geteuid())


def _name_of(look_up: Callable[[int], pwd.struct_passwd] | Callable[[int], grp.struct_group], number: int) -> str:
    try:
        return look_up(number)[0]
    except KeyError:
        return str(number)


def _container_hint(advice: str) -> str:
    inside = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    return f"; in this container: {advice}" if inside else ""


def _unreachable(url: SerialUrl, error: Exception) -> str:
    number = errno_of(error)
    cause = error.__cause__ or error.__context__
    if isinstance(cause, socket.gaierror):
        return f"there is no machine named {url.name}; is the name spelled correctly, does DNS work?"
    if number == errno.ECONNREFUSED:
        return f"nothing listens at {url.name}: is ser2net (or what else shares the port) running there?"
    if isinstance(cause, TimeoutError) or number in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH):
        return f"{url.name} does not answer: is that machine on, is the network up?"
    if "RFC2217" in str(error):
        return f"{url.name} answers, but not as RFC 2217; if it is a plain TCP port, write socket://{url.name}"
    return f"{url.name} cannot be reached: {_plain(error)}"


def _unusable(url: SerialUrl, error: Exception) -> str:
    if "not known" in str(error):
        return (
            f"{url.address}: {url.scheme}:// is not known; a source is a port (/dev/ttyUSB0), socket://HOST:PORT, "
            "rfc2217://HOST:PORT, file:PATH or sim:kamstrup"
        )
    if "baud" in str(error):
        place = url.path or url.address
        return f"{place} cannot be set to {url.settings.baud} baud; try another baud rate, such as baud=2400"
    return f"{url.address}: {_plain(error)}"


def _broken(path: str, number: int | None, error: Exception) -> str:
    if number == errno.EIO:
        return f"{path} has no hardware that answers; is it the right port? ({_ports()})"
    return f"{path} cannot be opened: {_plain(error)}"


def _plain(error: Exception) -> str:
    """The message of an error on one line; the operating system's own message if it has one."""
    number = errno_of(error)
    message = os.strerror(number) if number is not None and number > 0 else str(error)
    return " ".join(message.split())
