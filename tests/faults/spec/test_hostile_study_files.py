"""Study files that were made to crash, hang or exhaust: one line of error and exit status 2, whatever they hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_study import ONE_TRIAL

from edgedeploy.errors import SpecError
from edgedeploy.spec.study import load_spec

pytestmark = pytest.mark.beside

DEEP = 10_000


def changed(old: str, new: str) -> bytes:
    assert ONE_TRIAL.count(old) == 1
    return ONE_TRIAL.replace(old, new).encode()


FILES: dict[str, tuple[bytes, str]] = {
    "arrays 10,000 deep": (changed("trials = 1", f"trials = {'[' * DEEP}{']' * DEEP}"), "nested too deeply"),
    "inline tables 10,000 deep": (changed("trials = 1", f"trials = {'{a=' * DEEP}1{'}' * DEEP}"), "nested too deeply"),
    "a dotted table 10,000 deep": (
        ONE_TRIAL.encode() + f"[{'.'.join(['a'] * DEEP)}]\nb = 1\n".encode(),
        "nested too deeply",
    ),
    "a dotted key 10,000 deep": (changed("trials = 1", f"{'.'.join(['a'] * DEEP)} = 1"), "nested too deeply"),
    "an array 100 deep": (changed("width = [1.0]", f"width = {'[' * 100}1{']' * 100}"), "nested too deeply"),
    "inf": (changed("width = [1.0]", "width = [inf]"), "space.width number 1: expected a finite number, but got inf"),
    "nan": (changed("trials = 1", "trials = nan"), "budget.trials: expected a finite number, but got nan"),
    "nan in a task's options": (
        changed('ultrasound"', 'ultrasound"\n[task.options]\na = nan'),
        "task.options.a: expected a finite",
    ),
    "400 digits": (changed("trials = 1", f"trials = {'9' * 400}"), "budget.trials: expected a number of 64 bits"),
    "5000 digits": (changed("trials = 1", f"trials = {'9' * 5000}"), "not TOML: Exceeds the limit"),
    "a range of 400 digits": (
        changed("width = [1.0]", f"width = {{ low = 0, high = {'9' * 400}, step = 1 }}"),
        "space.width.high: expected a number of 64 bits",
    ),
    "a range without an end": (
        changed("width = [1.0]", "width = { low = -1e308, high = 1e308, step = 1e-308 }"),
        "at most",
    ),
    "a range of infinities": (
        changed("width = [1.0]", "width = { low = 1, high = inf, step = 1 }"),
        "expected a finite number",
    ),
    "lists for values": (changed("width = [1.0]", "width = [[1.0], [1.0]]"), "expected single values"),
    "a date": (changed("trials = 1", "trials = 1979-05-27"), "no key takes a date"),
    "a date for a time": (changed("trials = 1", "trials = 1\nwall_clock = 1979-05-27"), "no key takes a date"),
    "a list for a time": (changed("trials = 1", "trials = 1\nwall_clock = [1]"), "expected a quantity"),
    "a time of centuries": (changed("trials = 1", 'trials = 1\nwall_clock = "1e300 s"'), "a year at most"),
    "an infinite time": (changed("trials = 1", 'trials = 1\nwall_clock = "1e308 h"'), "expected a quantity"),
    "a NUL": (changed('"one trial"', '"one\\u0000trial"'), "a text with a NUL in it"),
    "a bare NUL": (changed("trials = 1", "trials = 1\0"), "not TOML"),
    "UTF-16": (ONE_TRIAL.encode("utf-16"), "cannot be read"),
    "Latin-1": (changed('"one trial"', '"é"').decode().encode("latin-1"), "cannot be read"),
    "a key of 100,000 letters": (changed("trials = 1", f"{'x' * 100_000} = 1"), "unknown key"),
    "a megabyte of spaces": (b" " * ((1 << 20) + 1), "it is larger than"),
    "a name of many lines": (changed("trials = 1", 'trials = """\n' + "x\n" * 1000 + '"""'), "budget.trials"),
}


@pytest.mark.fault(51)
@pytest.mark.parametrize("what", FILES)
def test_a_study_file_of_malice_is_one_short_line(what: str, tmp_path: Path) -> None:
    data, found = FILES[what]
    path = tmp_path / "study.toml"
    path.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000 + len(str(path))


@pytest.mark.fault(51)
@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
def test_what_is_no_file_is_not_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(SpecError, match="it is no file"):
        load_spec(path)


@pytest.mark.fault(51)
@pytest.mark.parametrize("what", ["arrays 10,000 deep", "400 digits"])
def test_the_command_line_says_it_in_one_line_and_exits_2(what: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_bytes(FILES[what][0])
    argv = [sys.executable, "-m", "edgedeploy", "search", "study.toml", "--out", "out"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and FILES[what][1].partition(":")[0] in done.stderr
    assert not (tmp_path / "out").exists()
