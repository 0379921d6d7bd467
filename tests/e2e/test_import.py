"""`import` as an owner runs it: the installed command as a process, into a real InfluxDB."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exporter.model.reading import Reading
from exporter.simulator.meter import SimulatedMeter
from tests.benchmarks.capture import Capture
from tests.e2e.captures import (
    PNG,
    damaged,
    in_pieces,
    write_hex,
    write_raw,
    write_stamped,
)
from tests.e2e.harness import HAN, Home, Run
from tests.e2e.truth import (
    assert_same,
    of_meters,
    read,
    reading_points,
    row_clock,
    row_points,
    to_ms,
    with_mark,
)
from tests.support.influx_server import Influx, Store, free_port
from tests.support.octets import expected
from tests.support.patience import HANG_S, until

NAMES = sorted(expected())


@pytest.fixture
def captures(home: Home, mark: str) -> dict[str, Path]:
    """Every capture as a file of raw data, its meters being this test's own."""
    return {name: write_raw(home.folder / f"{name}-{mark}.bin", with_mark(name, mark)[0]) for name in NAMES}


def test_all_captures_are_in_influxdb_once_however_often_they_are_imported(
    home: Home, store: Store, captures: dict[str, Path], mark: str
) -> None:
    done = home.han("import", *captures.values(), influx=store)
    assert done.returncode == 0, done.stderr
    wanted = set()
    for name, file in captures.items():
        points = row_points(with_mark(name, mark)[1], f"unknown-{file.name}")
        wanted |= points
        frames = len(expected()[name])
        (line,) = (line for line in done.stderr.splitlines() if line.startswith(f"{file}: "))
        timeless = f", {frames} without any time" if not points else ""
        summary, _, count = line.removesuffix(" points in InfluxDB").partition("; ")
        assert summary == f"{file}: {frames} frame{'s' * (frames != 1)}{timeless}"
        assert int(count) >= len(points)  # and what is worked out from them
        assert points or count == "0"
    found = store.points()
    assert_same(of_meters(found), wanted)
    assert home.han("import", *captures.values(), influx=store).returncode == 0
    assert store.points() == found


@pytest.mark.parametrize("name", ["kamstrup-1phase-norway", "aidon-3phase-sweden"])
def test_the_form_of_a_capture_makes_no_difference(home: Home, store: Store, mark: str, name: str) -> None:
    frames, rows = with_mark(name, mark)
    wanted = row_points(rows, f"unknown-{mark}")
    for number, write in enumerate((write_raw, write_hex)):
        folder = home.folder / str(number)
        folder.mkdir()
        assert home.han("import", write(folder / mark, frames), influx=store).returncode == 0
        assert_same(of_meters(store.points()), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_a_stamped_capture_gives_what_run_gives_of_the_same_octets(
    home: Home, store: Store, shared_influx: Influx, mark: str, name: str
) -> None:
    """Each list came 4.321 s after its own clock, or 10 s after the list before; in pieces, as a port gives them."""
    frames, rows = with_mark(name, mark)
    moments: list[datetime] = []
    for row in rows:
        clock = row_clock(row)
        if clock is not None:
            moments.append(datetime.fromtimestamp(clock / 1000, UTC) + timedelta(milliseconds=4321))
        else:
            before = moments[-1] if moments else datetime(2026, 3, 1, 11, 59, 50, 7000, tzinfo=UTC)
            moments.append(before + timedelta(seconds=10))
    file = write_stamped(home.folder / f"{mark}.hex", in_pieces(zip(moments, frames, strict=True), 50))
    wanted = row_points(rows, f"unknown-{file.name}", map(to_ms, moments))

    other = Store(shared_influx)
    run = home.run(influx=other, source=f"file:{file}", instance=mark)
    assert run.wait() == 0
    assert home.han("import", file, influx=store).returncode == 0
    assert_same(of_meters(store.points()), wanted)
    assert_same(of_meters(other.points()), wanted)
    assert home.waiting_lines() == 0


def test_an_autumn_night_of_three_meters_by_import_and_by_run(
    home: Home, store: Store, shared_influx: Influx, mark: str
) -> None:
    """Full hours with registers in them, through the night in which winter time begins (25 hours, 02:00 twice)."""
    start, end = datetime(2026, 10, 24, 23, 50, tzinfo=UTC), datetime(2026, 10, 25, 1, 2, tzinfo=UTC)
    files, wanted = [], set()
    for maker in ("kamstrup", "aidon", "kaifa"):
        meter = SimulatedMeter(maker, meter_id=f"NIGHT-{maker}-{mark}")
        # Of the fast lists only those around the hours: they make the time, and show nothing more.
        frames = [
            frame for frame in meter.frames(start, end) if len(frame.data) > 60 or frame.complete.minute in (0, 59)
        ]
        files.append(write_stamped(home.folder / f"{maker}.hex", frames))
        used: set[int] = set()
        begun: set[int] = set()
        for complete, data in frames:
            time = (complete - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
            assert time not in used
            used.add(time)
            reading = read(data)
            if reading.clock is not None and abs(to_ms(reading.clock) - time) > 600_000:
                # The civil clock shows this hour twice; which one it is, only `received` tells.
                assert maker == "kaifa"
                assert to_ms(reading.clock) + 3_600_000 - time < 60_000
                reading = _an_hour_later(data)
            wanted |= reading_points(reading, meter.id, time, begun)
    hours = {p.time for p in wanted if p.measurement == "active_energy"}
    assert hours == {to_ms(datetime(2026, 10, 25, hour, tzinfo=UTC)) for hour in (0, 1)}

    other = Store(shared_influx)
    done = home.han("import", *files, influx=store)
    assert done.returncode == 0, done.stderr
    assert_same(of_meters(store.points()), wanted)
    source = " ".join(f"file:{file}" for file in files)
    assert home.run(influx=other, source=source, instance=mark).wait() == 0
    assert_same(of_meters(other.points()), wanted)


def _an_hour_later(data: bytes) -> Reading:
    reading = read(data)
    assert reading.clock is not None
    return replace(reading, clock=reading.clock + timedelta(hours=1))


def test_damage_is_reported_and_the_rest_is_imported(home: Home, store: Store, mark: str) -> None:
    frames, rows = with_mark("kamstrup-1phase-norway", mark)
    file = write_raw(home.folder / mark, [frames[0], damaged(frames[1]), frames[2]])
    done = home.han("import", file, influx=store)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{file}: 2 frames, 1 rejected; ")
    assert_same(of_meters(store.points()), row_points([rows[0], rows[2]], ""))


def test_an_unusable_file_beside_good_ones(home: Home, store: Store, mark: str) -> None:
    frames, rows = with_mark("kamstrup-3phase-sweden", mark)
    good = write_hex(home.folder / "good.hex", frames)
    picture = home.folder / "meter.png"
    picture.write_bytes(PNG)
    done = home.han("import", picture, home.folder / "none", home.folder, good, influx=store)
    assert done.returncode == 2
    png, missing, folder, summary = done.stderr.splitlines()
    assert png == f"{picture}: a PNG picture; no HDLC frame in it"
    assert missing == f"{home.folder}/none cannot be read: No such file or directory"
    assert folder == f"{home.folder} cannot be read: Is a directory"
    assert summary.startswith(f"{good}: 1 frame; ")
    assert_same(of_meters(store.points()), row_points(rows, ""))


def test_a_meter_without_a_name_is_called_as_the_setting_says(home: Home, store: Store, mark: str) -> None:
    frames, rows = with_mark("aidon-3phase-sweden", mark)
    file = write_raw(home.folder / "a.bin", frames)
    assert home.han("import", file, "--meter-id", f"hytta-{mark}", influx=store).returncode == 0
    assert_same(of_meters(store.points()), row_points(rows, f"hytta-{mark}"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"influx_bucket": "not_there"}, 'no bucket or database "not_there"'),
        ({"influx_token": "tester:wrong-secret"}, "does not know the token"),
        ({"influx_url": "localhost:8086"}, "HAN_INFLUX_URL: "),
    ],
)
def test_wrong_settings_are_named_and_nothing_is_written(
    home: Home, store: Store, captures: dict[str, Path], settings: dict[str, Any], words: str
) -> None:
    if "influx_token" in settings and not store.token:
        settings["influx_bucket"], words = "not_there", "not_there"  # a server without authorization takes any token
    done = home.han("import", *captures.values(), influx=store, **settings)
    assert done.returncode == 2
    assert words in done.stderr
    assert "wrong-secret" not in done.stderr
    assert not store.points()


def test_without_an_influxdb_it_says_which_setting_is_missing(home: Home, captures: dict[str, Path]) -> None:
    done = home.han("import", *captures.values())
    assert done.returncode == 2
    assert "HAN_INFLUX_URL" in done.stderr


def test_an_influxdb_that_is_away_for_a_moment_is_waited_for(home: Home, influx: Influx, mark: str) -> None:
    store = Store(influx)
    frames, rows = with_mark("kaifa-3phase-norway", mark)
    file = write_raw(home.folder / "a.bin", frames)
    influx.stop()
    run = Run([str(HAN), "import", str(file)], home.environment(store), home.folder)
    run.expect("cannot be reached: connection refused; trying again")
    influx.start()
    assert run.wait() == 0
    assert_same(of_meters(store.points()), row_points(rows, ""))
    run.kill()


def test_an_influxdb_that_is_killed_in_the_middle_has_every_point_in_the_end(home: Home, influx: Influx) -> None:
    capture = Capture(home.folder / "days.raw")
    capture.grow_to(40_000)
    client = influx.client()

    def powers() -> int:
        found = client.query('SELECT count("value") FROM "active_power"')
        return int(found[0].rows[0][1]) if found else 0

    run = Run([str(HAN), "import", str(capture.path)], home.environment(influx), home.folder)
    until(powers, what="the first points")
    influx.stop(kill=True)
    run.expect("trying again")
    influx.start()
    assert run.wait() == 0
    assert powers() == 2 * 40_000  # import and export, in each list
    run.kill()


def test_a_progress_bar_where_someone_looks(home: Home, store: Store, mark: str) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    meter = SimulatedMeter("kamstrup", meter_id=f"BAR-{mark}")
    file = write_stamped(home.folder / "bar.hex", meter.frames(start, start + timedelta(hours=4)))
    watched, terminal = pty.openpty()
    process = subprocess.Popen(
        [str(HAN), "import", str(file)],
        env=home.environment(store) | {"TERM": "xterm", "COLUMNS": "100"},
        cwd=home.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    seen = bytearray()

    def look() -> None:
        try:
            while data := os.read(watched, 65536):
                seen.extend(data)
        except OSError:  # the other end was closed
            return

    looker = threading.Thread(target=look, daemon=True)
    looker.start()
    assert process.wait(HANG_S) == 0
    looker.join(HANG_S)
    os.close(watched)
    shown = seen.decode()
    assert "bar.hex" in shown
    assert "━" in shown
    size = f"{file.stat().st_size / 1000:.1f}"
    assert f"{size}/{size} kB" in shown, "the bar is full at the end"
    assert "1444 frames" in shown


def test_no_bar_where_nobody_looks(home: Home, store: Store, captures: dict[str, Path]) -> None:
    done = home.han("import", *captures.values(), influx=store)
    assert "━" not in done.stderr
    assert len(done.stderr.splitlines()) == len(captures)


def test_a_missing_certificate_is_reported_at_once(home: Home, mark: str) -> None:
    file = write_raw(home.folder / "a.bin", with_mark("kaifa-3phase-norway", mark)[0])
    began = datetime.now(UTC)
    done = home.han("import", file, influx_url=f"https://127.0.0.1:{free_port()}", influx_ca_cert=home.folder / "no")
    assert done.returncode == 2
    assert "there is no certificate" in done.stderr
    assert datetime.now(UTC) - began < timedelta(seconds=20)
