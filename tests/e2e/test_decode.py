"""`decode` as an owner runs it: the installed command as a process."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.captures import (
    ENCRYPTED,
    P1,
    PNG,
    UNKNOWN_LIST,
    damaged,
    every_ten_seconds,
    fcs_words,
    in_pieces,
    write_hex,
    write_raw,
    write_stamped,
)
from tests.e2e.harness import HAN, Home
from tests.e2e.truth import assert_same, line_points, quantity, row_points, row_values
from tests.support.made_captures import kamstrup_10s
from tests.support.octets import all_frames, expected, frames_of, joined
from tests.support.patience import HANG_S

KAMSTRUP = frames_of("kamstrup-1phase-norway")
_LISTS = (b"Kamstrup_V0001", b"KFM_001", b"AIDON_V0001", b"EMBRIQ_V1_1")


def unit(obis: str) -> str:
    name, _ = quantity(obis)
    return {
        "active_power": "W",
        "reactive_power": "var",
        "active_energy": "Wh",
        "reactive_energy": "varh",
        "current": "A",
        "voltage": "V",
    }[name]


def wanted_objects() -> list[dict[str, Any]]:
    """What must be printed for all captures, one after the other."""
    rows = [row for name in sorted(expected()) for row in expected()[name]]
    found, offset = [], 0
    for data, row in zip(all_frames(), rows, strict=True):
        names = [name.decode() for name in _LISTS if name in data]
        found.append(
            {
                "offset": offset,
                "octets": len(data),
                "maker": row.get("maker"),
                "meter_id": row.get("meter_id"),
                "meter_type": row.get("meter_type"),
                "list": names[0] if names else None,
                "clock": row.get("clock_utc"),
                "measurements": {obis: {"value": value, "unit": unit(obis)} for obis, value in row_values(row).items()},
            }
        )
        offset += len(data)
    return found


def objects(text: str) -> list[dict[str, Any]]:
    """JSON lines; that offsets and sizes leave no hole is checked here, for every test."""
    found: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    at = 0
    for one in found:
        assert one["offset"] == at
        at += one["octets"]
    return found


def test_json_is_what_the_issue_says_key_for_key(home: Home) -> None:
    done = home.han("decode", "--format", "json", write_raw(home.folder / "all.bin", all_frames()))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 20)
    assert objects(done.stdout) == wanted_objects()
    keys = ["offset", "octets", "maker", "meter_id", "meter_type", "list", "clock", "measurements"]
    assert all(list(one) == keys for one in objects(done.stdout))


def test_one_list_word_for_word(home: Home) -> None:
    done = home.han("decode", "--format", "json", stdin=kamstrup_10s().frame)
    assert done.returncode == 0
    assert done.stdout.startswith('{"offset": 0, "octets": 228, "maker": "Kamstrup", "meter_id": "57065670')
    assert '"list": "Kamstrup_V0001", "clock": "2023-02-09T06:15:20Z", "measurements": {"1-1:1.7.0": ' in done.stdout
    assert '"1-1:1.7.0": {"value": 4126.0, "unit": "W"}' in done.stdout


@pytest.mark.parametrize("form", ["text", "json"])
def test_all_forms_of_a_capture_say_the_same(home: Home, form: str) -> None:
    frames = [KAMSTRUP[0][70:], *all_frames(), damaged(KAMSTRUP[1]), KAMSTRUP[2][:40]]
    raw = write_raw(home.folder / "a.bin", frames)
    files = [
        write_hex(home.folder / "a.hex", frames),
        write_stamped(home.folder / "a.stamped", every_ten_seconds(frames)),
        write_stamped(home.folder / "b.stamped", in_pieces(every_ten_seconds(frames), 7)),
    ]
    wanted = home.han("decode", "--format", form, raw)
    assert wanted.returncode == 1
    assert wanted.stdout.count("5706567100012345") == 3
    for file in files:
        done = home.han("decode", "--format", form, file)
        assert (done.returncode, done.stdout) == (1, wanted.stdout), file.name
    from_stdin = home.han("decode", "--format", form, "-", stdin=files[0].read_bytes())
    assert (from_stdin.returncode, from_stdin.stdout) == (1, wanted.stdout)


def test_text_is_for_people(home: Home) -> None:
    done = home.han("decode", write_raw(home.folder / "a.bin", [KAMSTRUP[2]]))
    assert done.returncode == 0
    assert done.stderr.strip().endswith("a.bin: 1 frame")
    assert done.stdout == (
        "byte 0: 262 bytes, Kamstrup_V0001, Kamstrup 6861111BN299901040, meter 5706567100012345, "
        "clock 2023-01-14T07:00:35Z\n"
        "  1-1:1.7.0      Active power import                   587 W\n"
        "  1-1:2.7.0      Active power export                     0 W\n"
        "  1-1:3.7.0      Reactive power import                  72 var\n"
        "  1-1:4.7.0      Reactive power export                   0 var\n"
        "  1-1:31.7.0     Current L1                           2.64 A\n"
        "  1-1:32.7.0     Voltage L1                            230 V\n"
        "  1-1:1.8.0      Active energy import             20418650 Wh\n"
        "  1-1:2.8.0      Active energy export                    0 Wh\n"
        "  1-1:3.8.0      Reactive energy import             512370 varh\n"
        "  1-1:4.8.0      Reactive energy export            4096210 varh\n"
    )


@pytest.mark.parametrize("name", sorted(set(expected()) - {"landisgyr-e350-norway"}))
def test_lp_is_what_import_would_write(home: Home, name: str) -> None:
    file = write_hex(home.folder / "a.hex", frames_of(name))
    done = home.han("decode", "--format", "lp", file)
    assert done.returncode == 0
    rows = expected()[name]
    wanted = row_points(rows, f"unknown-{file.name}")
    assert_same(line_points(done.stdout), wanted)
    assert len(done.stdout.splitlines()) == sum(len(row_values(row)) for row in rows)


def test_lp_without_any_time_has_no_time_stamp_and_takes_the_id_last_heard(home: Home) -> None:
    name = "landisgyr-e350-norway"
    done = home.han("decode", "--format", "lp", write_raw(home.folder / "a.bin", frames_of(name)))
    wanted = []
    for row in expected()[name]:
        for obis, value in row_values(row).items():
            measurement, tags = quantity(obis)
            tags["meter_id"] = "10012345"
            series = ",".join([measurement, *(f"{name}={value}" for name, value in sorted(tags.items()))])
            wanted.append(f"{series} value={value}")
    assert sorted(done.stdout.splitlines()) == sorted(wanted)
    assert len(wanted) == 2 * 8 + 6
    assert done.returncode == 0
    assert "8 without any time" in done.stderr


def test_damaged_in_the_middle_is_1_and_costs_one_frame(home: Home) -> None:
    bad = damaged(KAMSTRUP[1])
    done = home.han("decode", "--format", "json", stdin=joined([KAMSTRUP[0], bad, KAMSTRUP[2]]))
    first, second, third = objects(done.stdout)
    assert second == {"offset": 188, "octets": 188, "rejected": fcs_words(bad)}
    assert (first["clock"], third["clock"]) == ("2023-01-14T07:00:20Z", "2023-01-14T07:00:35Z")
    assert done.returncode == 1
    assert "2 frames, 1 rejected" in done.stderr


def test_garbage_between_frames_is_1(home: Home) -> None:
    done = home.han("decode", "--format", "json", stdin=joined([KAMSTRUP[0], b"\x55" * 30, KAMSTRUP[1]]))
    first, noise, last = objects(done.stdout)
    assert (first["octets"], noise["octets"], last["octets"]) == (188, 30, 188)
    assert "rejected" in noise and "rejected" not in last
    assert done.returncode == 1


def test_cut_at_both_ends_is_not_held_against_a_capture(home: Home) -> None:
    done = home.han("decode", "--format", "json", stdin=joined([KAMSTRUP[0][90:], KAMSTRUP[1], KAMSTRUP[2][:50]]))
    head, whole, tail = objects(done.stdout)
    assert (head["octets"], "rejected" in head) == (98, True)
    assert whole["clock"] == "2023-01-14T07:00:30Z"
    assert "50 of 262" in tail.pop("rejected")
    assert tail == {"offset": 286, "octets": 50}
    assert done.returncode == 0


def test_half_a_frame(home: Home) -> None:
    done = home.han("decode", "--format", "json", stdin=KAMSTRUP[0][:31])
    (rejected,) = objects(done.stdout)
    assert "31 of 188" in rejected.pop("rejected")
    assert rejected == {"offset": 0, "octets": 31}
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [(ENCRYPTED, "encrypted; not supported yet"), (UNKNOWN_LIST, "unknown list (a structure of 2)")],
    ids=["encrypted", "unknown"],
)
def test_a_frame_that_checks_and_cannot_be_read_is_named(home: Home, data: bytes, words: str) -> None:
    done = home.han("decode", "--format", "json", stdin=data)
    assert objects(done.stdout) == [{"offset": 0, "octets": len(data), "rejected": words}]
    assert done.returncode == 1
    for form in ("text", "lp"):
        done = home.han("decode", "--format", form, stdin=data)
        assert words in done.stdout + done.stderr
        assert done.returncode == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (PNG, "a PNG picture"),
        (P1, "a P1 telegram"),
        (b"Dear Sir,\nhere is my meter.\n", "Dear Sir"),
        (b"# nothing yet\n", "only blanks and comments"),
        (bytes(range(0x80, 0xF0)) * 20, "no HDLC frame in it (2 240 bytes of something else)"),
    ],
    ids=["empty", "png", "p1", "text", "comments", "binary"],
)
def test_what_is_no_capture_is_2_and_named(home: Home, content: bytes, words: str) -> None:
    file = home.folder / "capture"
    file.write_bytes(content)
    done = home.han("decode", "--format", "lp" if content is P1 else "json" if content is PNG else "text", file)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"{file}: ")
    assert words in line


def test_files_that_cannot_be_read(home: Home) -> None:
    there_is_none = home.han("decode", home.folder / "none.hex")
    assert (there_is_none.returncode, there_is_none.stdout) == (2, "")
    assert there_is_none.stderr == f"{home.folder}/none.hex cannot be read: No such file or directory\n"
    folder = home.han("decode", home.folder)
    assert (folder.returncode, folder.stderr) == (2, f"{home.folder} cannot be read: Is a directory\n")


def test_a_damaged_line_costs_that_line_and_is_reported(home: Home) -> None:
    lines = [data.hex() for data in KAMSTRUP]
    lines[1] = lines[1][:99] + "x" + lines[1][100:]
    file = home.folder / "a.hex"
    file.write_text("\n".join(lines) + "\n")
    done = home.han("decode", "--format", "json", file)
    assert [one["clock"] for one in objects(done.stdout)] == ["2023-01-14T07:00:20Z", "2023-01-14T07:00:35Z"]
    assert done.returncode == 1
    assert done.stderr.startswith("line 2: ")
    assert "2 frames, 1 damaged line" in done.stderr


def test_a_reader_that_goes_away_is_no_crash(home: Home) -> None:
    file = write_raw(home.folder / "a.bin", KAMSTRUP * 300)
    with subprocess.Popen(
        [str(HAN), "decode", str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=home.environment()
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b"byte 0: 188 bytes")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(HANG_S) == 1


def test_a_wrong_format_is_reported_with_the_known_ones(home: Home) -> None:
    done = home.han("decode", "--format", "xml", stdin=KAMSTRUP[0])
    assert done.returncode == 2
    assert "'text', 'json', 'lp'" in done.stderr


def test_the_file_beside_it(home: Home) -> None:
    """A folder's han.toml is read by `decode` too: its time zone counts."""
    (home.folder / "han.toml").write_text('timezone = "Europe/Helsinki"\n')
    done = home.han("decode", "--format", "json", stdin=KAMSTRUP[0])
    assert objects(done.stdout)[0]["clock"] == "2023-01-14T06:00:20Z"
    assert Path(home.folder / "han.toml").exists()
