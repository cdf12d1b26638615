"""Every recorded line of tegrastats against values that were read off the line by eye."""

from __future__ import annotations

from pathlib import Path

import pytest
from seen_tegrastats import RECORDED, SEEN, Seen

from edgedeploy.runtime.sensors.tegrastats import Load, TegraReading, TegrastatsError, parse


def check(reading: TegraReading, seen: Seen) -> None:
    assert (reading.ram_used_mb, reading.ram_total_mb) == seen.ram
    assert (reading.largest_free_blocks, reading.largest_free_block_kb) == seen.lfb
    assert (reading.swap_used_mb, reading.swap_total_mb) == (seen.swap or (None, None))
    assert [core.on for core in reading.cpus] == [core is not None for core in seen.cpus]
    assert [(core.percent, *core.mhz) for core in reading.cpus if core.on] == [core for core in seen.cpus if core]
    if seen.emc is None:
        assert reading.emc is None
    else:
        percent, mhz = seen.emc
        assert reading.emc == Load(percent, () if mhz is None else (mhz,))
    assert list(reading.gpus) == seen.gpus
    assert reading.temperatures_c == {**seen.temperatures, **dict.fromkeys(seen.off)}
    assert [(rail.name, rail.now_mw, rail.average_mw) for rail in reading.rails] == seen.rails
    assert reading.engines == seen.engines
    assert reading.stamp == seen.stamp


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(SEEN))
def test_every_recorded_line_is_read_or_refused(shared: Path, name: str) -> None:
    lines = (shared / "recorded" / "tegrastats" / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(SEEN[name])
    for line, seen in zip(lines, SEEN[name], strict=True):
        if seen is None:
            with pytest.raises(TegrastatsError, match="cut"):
                parse(line)
        else:
            check(parse(line), seen)


@pytest.mark.shared
def test_no_recorded_file_is_left_out(shared: Path) -> None:
    found = {path.name for path in (shared / "recorded" / "tegrastats").iterdir()}
    assert found == set(SEEN)
    assert sum(len(lines) for lines in SEEN.values()) == 31


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.txt")), ids=lambda path: path.name)
def test_committed_lines(path: Path) -> None:
    """The same values, over the lines that are part of the project."""
    stamps = {(seen.stamp, seen.ram): seen for seen in SEEN[path.name] if seen}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.endswith("GPU@51C"):
            with pytest.raises(TegrastatsError, match="cut"):
                parse(line)
            continue
        reading = parse(line)
        check(reading, stamps[reading.stamp, (reading.ram_used_mb, reading.ram_total_mb)])


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.txt")), ids=lambda path: path.name)
def test_a_line_cut_anywhere_is_refused(path: Path) -> None:
    """With the rails of the line before. Where no unit is printed, a cut inside the very last number cannot show."""
    line = path.read_text(encoding="utf-8").splitlines()[0]
    rails = [rail.name for rail in parse(line).rails]
    hidden = 0 if line.endswith("W") else len(line) - line.rindex("/") - 2
    for end in range(len(line) - hidden):
        with pytest.raises(TegrastatsError):
            parse(line[:end], rails)


def test_a_rail_and_a_sensor_of_one_name_are_two_things() -> None:
    reading = parse((RECORDED / "agx_xavier_jp42.txt").read_text(encoding="utf-8"))
    assert reading.temperatures_c["GPU"] == 30.5
    assert reading.rail_mw("GPU") == 463


def test_a_rail_that_is_there_twice_has_no_value() -> None:
    reading = parse((RECORDED / "agx_orin_l4t35.txt").read_text(encoding="utf-8"))
    assert reading.rail_mw("VIN_SYS_5V0") == 4032
    with pytest.raises(LookupError, match="2 rails"):
        reading.rail_mw("NC")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("VDD_IN 16321mW/11204mW", "VDD_IN 16321uW/11204uW"),
        ("VDD_IN 16321mW/11204mW", "VDD_IN 16321mW/11204"),
        ("RAM 6712/7620MB", "RAM 6712/7620GB"),
        ("cpu@57.125C", "cpu@57.125F"),
        ("CPU [38%@1497", "CPU [38%@fast"),
        ("EMC_FREQ 61%@2133", "EMC_FREQ lots"),
        ("RAM 6712", "RAM 6712/7620MB (lfb 12x4MB) RAM 6712"),
        ("APE 200", "APE 200 SOMETHING new"),
        ("VDD_SOC 3120mW/3659mW", "VDD_SOC 3120mW/3659mW NEXT_FIELD 7"),
    ],
)
def test_an_unknown_field_or_unit_fails_loudly_and_keeps_the_line(old: str, new: str) -> None:
    line = (RECORDED / "orin_nano_l4t36.txt").read_text(encoding="utf-8").rstrip("\n")
    assert line.count(old) == 1
    with pytest.raises(TegrastatsError) as caught:
        parse(line.replace(old, new))
    assert caught.value.line == line.replace(old, new)
