"""A certificate authority for tests, and a TLS proxy in front of a server. Needs `openssl`."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.influx_server import pass_on
from tests.support.patience import HANG_S


class Authority:
    """A certificate authority in a folder. `certificate` is its own certificate."""

    def __init__(self, folder: Path, name: str = "An authority") -> None:
        if shutil.which("openssl") is None:
            pytest.fail("these tests make certificates with `openssl`: install it (apt-get install openssl)")
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self.certificate = folder / "authority.pem"
        self._key = folder / "authority.key"
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9"),
            *("-keyout", str(self._key), "-out", str(self.certificate), "-subj", f"/CN={name}"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def sign(self, name: str, *, alternatives: str = "IP:127.0.0.1,DNS:localhost", days: float = 5) -> Path:
        """A file with a server's certificate and key. Negative `days`: it expired so long ago."""
        key, request, made = (self._folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key)),
            *("-out", str(request), "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternatives}"),
        )
        self._sign(request, made, days)
        made.write_text(made.read_text("ascii") + key.read_text("ascii"), "ascii")
        return made

    def _sign(self, request: Path, made: Path, days: float) -> None:
        (self._folder / "index.txt").write_text("")
        (self._folder / "serial").write_text("01\n")
        settings = self._folder / "ca.cnf"
        settings.write_text(
            "[ca]\ndefault_ca=own\n[own]\n"
            f"new_certs_dir={self._folder}\ndatabase={self._folder}/index.txt\nserial={self._folder}/serial\n"
            f"certificate={self.certificate}\nprivate_key={self._key}\ndefault_md=sha256\npolicy=any\n"
            "copy_extensions=copy\nunique_subject=no\nx509_extensions=leaf\n"
            # Python 3.13 and later require these.
            "[leaf]\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\nbasicConstraints=critical,CA:FALSE\n[any]\ncommonName=supplied\n"
        )
        now = datetime.now(UTC)
        end = now + timedelta(days=days)
        begin = min(now, end) - timedelta(days=1)
        self._openssl(
            *("ca", "-batch", "-notext", "-config", str(settings), "-in", str(request), "-out", str(made)),
            *("-startdate", f"{begin:%Y%m%d%H%M%SZ}", "-enddate", f"{end:%Y%m%d%H%M%SZ}"),
        )

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@contextmanager
def tls_door(certificate: Path, there: tuple[str, int]) -> Iterator[int]:
    """A TLS proxy for the server at `there`; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=_serve, args=(door, context, there), daemon=True)
        thread.start()
        yield int(door.getsockname()[1])
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
    thread.join(HANG_S)


def _serve(door: socket.socket, context: ssl.SSLContext, there: tuple[str, int]) -> None:
    while True:
        try:
            bare, _ = door.accept()
        except OSError:
            return
        try:
            here = context.wrap_socket(bare, server_side=True)
        except OSError:  # the client rejects the certificate, or does not use TLS
            with suppress(OSError):
                bare.close()
            continue
        inside = socket.create_connection(there)
        for one, other in ((here, inside), (inside, here)):
            threading.Thread(target=pass_on, args=(one, other), daemon=True).start()
