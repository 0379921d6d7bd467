"""The simulator's overload, from the meter's bytes to the message, with the rules of the stack: minutes of real time.

It begins with the first test of alerts, and runs while the others run.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.e2e.alerting import Message, StartedGrafana, Webhook
from tests.e2e.harness import Home
from tests.support.influx_server import serve

METER = "SIMULATED-KAMSTRUP-1"


class Overload:
    """`sim:kamstrup?overload=L2` with its own InfluxDB and Grafana.

    `fired` and `ended` are the messages about the fuse, `fired_after` and `ended_after` the seconds from the first
    byte. The overload begins with it, and lasts five minutes.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self.messages: list[Message] = []
        self.fired_after = self.ended_after = 0.0
        self.failed: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(home, folder), daemon=True)
        self._thread.start()

    @property
    def fired(self) -> Message | None:
        """The message when it fired."""
        return self._message("firing")

    @property
    def ended(self) -> Message | None:
        """The message when it ended."""
        return self._message("resolved")

    def wait(self) -> None:
        """Wait until it has ended. Raises the error if there was one."""
        self._thread.join()
        if self.failed is not None:
            raise self.failed

    def close(self) -> None:
        """Stop at once."""
        self._stop.set()
        self._thread.join()

    @property
    def alerts(self) -> set[tuple[str, str, str]]:
        """Status, name and phase of all alerts of the simulated meter."""
        found = {alert for message in self.messages for alert in message.alerts}
        return {(status, name, owner) for status, name, owner in found if owner.startswith(METER)}

    def _message(self, status: str) -> Message | None:
        wanted = (status, "Fuse overloaded", f"{METER} L2")
        return next((message for message in self.messages if wanted in message.alerts), None)

    def _run(self, home: Path, folder: Path) -> None:
        try:
            self._measure(home, folder)
        except BaseException as failed:  # noqa: BLE001 - `wait` raises it
            self.failed = failed

    def _measure(self, home: Path, folder: Path) -> None:
        influx, webhook, owner = serve(folder), Webhook(), Home(folder)
        self.messages = webhook.messages
        grafana = StartedGrafana(home, folder / "grafana", influx, HAN_ALERT_WEBHOOK=webhook.url)
        try:
            grafana.start()
            owner.run(influx=influx, source="sim:kamstrup?overload=L2").expect("reading")
            began = time.monotonic()
            while self.ended is None and time.monotonic() - began < 540 and not self._stop.wait(0.5):
                pass
            self.fired_after = self.fired.at - began if self.fired else 0.0
            self.ended_after = self.ended.at - began if self.ended else 0.0
        finally:
            owner.end()
            grafana.stop()
            influx.stop()
            webhook.close()
