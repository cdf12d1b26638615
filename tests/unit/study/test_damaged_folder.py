"""A damaged file of a study's folder stops nobody: it is left out with a line that names it and what is wrong. What the
folder is nothing without (study.json, study.toml) ends in one typed error that also says what to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any, Final

import made_up
import pytest
from made_up_study import new_store

from edgedeploy.__main__ import main
from edgedeploy.errors import DataError, EdgeDeployError
from edgedeploy.files.parsing import MOST_FILE_BYTES
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.measurement import Failure
from edgedeploy.report.make import make_report
from edgedeploy.study.account import summarise
from edgedeploy.study.front import read_front
from edgedeploy.study.retry import set_failures_aside
from edgedeploy.study.store import Store

TRAINING: Final = {
    "epochs": 3,
    "wall_s": 2.5,
    "precision": "float32",
    "host": {"cpu": "Made up", "isa": ["avx2"], "native_bfloat16": False, "isa_limit": ""},
}

Content = bytes | Callable[[dict[str, Any]], Any]
"""What a file is overwritten with, or a change to its JSON."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "study"
    store = new_store(root, [made_up.variant()])
    for item in (made_up.measurement(made_up.variant()), made_up.measurement(made_up.variant(precision="int8"))):
        store.keep(item)
        store.keep(replace(item, split="confirmation"))
    store.keep(made_up.measurement(made_up.variant(width=0.5), cause="the baseline became slower"))
    store.keep_failure(Failure(made_up.variant(width=0.25), "Unsupported", "build", "no kernel for Conv", "2026-01-01"))
    store.log_opening("end", (made_up.variant().digest,))
    for at_ns in (5, 9):
        store.add_time("a", "measure", 4, at_ns)
    store.keep_baseline_training(TRAINING)
    return root


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "study")


def read(folder: Path) -> None:
    """All that ``front`` and ``report`` read."""
    read_front(folder, resamples=10)
    make_report(folder)


def changed(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda data: {**data, **values}


def lacking(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda data: {key: value for key, value in data.items() if key != name}


def inside(name: str, **values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda data: {**data, name: {**data[name], **values}}


ANY_RECORD: Final[dict[str, Content]] = {
    "torn": b'{"schema": 1, "var',
    "empty": b"",
    "a list": b"[]",
    "not UTF-8": b'{"schema": "\xff"}',
    "deeply nested": b'{"schema":' * 100_000,
    "a number of 5000 digits": b'{"schema": ' + b"9" * 5000 + b"}",
}
MEASUREMENT: Final[dict[str, Content]] = {
    "another schema": changed(schema=2),
    "NaN": inside("metrics", dice_mean=float("nan")),
    "a huge number": inside("metrics", dice_mean=10**400),
    "a number whose square is none": inside("metrics", dice_mean=1e308),
    "such a number in a case": changed(cases={"a": {"dice_mean": -1e200}}),
    "a word for a number": inside("metrics", dice_mean="high"),
    "no number": inside("metrics", dice_mean=None),
    "no metrics": lacking("metrics"),
    "no variant": lacking("variant"),
    "no cases": changed(cases=None),
    "a word in a case": changed(cases={"a": {"dice_mean": "x"}}),
    "words for blocks": inside("candidate", blocks_ns="x"),
    "huge blocks": inside("candidate", blocks_ns=[[10**30]]),
    "no board": changed(board=[]),
    "cores in words": inside("board", cores="two"),
    "another provenance": changed(provenance="guessed"),
    "a list in the architecture": inside("variant", arch={"resolution": [1]}),
    "a width that is none": inside("variant", width="nan"),
    "files that are none": inside("artifact", files="x"),
    "notes that are numbers": changed(notes=[1]),
    "an environment in words": changed(environment="warm"),
    "conditions that are a number": inside("environment", before=7),
    "a share in words": inside("environment", background_cpu_share="half"),
    "energy in words": inside("environment", energy="much"),
    "energy without samples": inside("environment", energy={"source": "rail", "scope": "board", "kind": "power"}),
    "layers in words": changed(layers="fast"),
    "layers that are numbers": changed(layers={"candidate": {"layers": [7]}}),
    "a layer without a time": changed(layers={"candidate": {"layers": [{"name": "conv", "source": None}]}}),
    "scenarios in words": changed(protocols="sustained"),
    "a scenario that is a number": changed(protocols={"sustained": 7}),
    "a sustained load without windows": changed(protocols={"sustained": {}}),
    "windows without times": changed(protocols={"sustained": {"windows": [{"queries": 9}], "conditions": []}}),
}
DAMAGES: Final = [
    *[(where, what) for where in ("measurements", "invalid", "confirmation") for what in (*ANY_RECORD, *MEASUREMENT)],
    *[("failures", what) for what in ANY_RECORD],
    *[("baseline", what) for what in ANY_RECORD],
]


def damage(path: Path, content: Content) -> None:
    path.write_bytes(
        content if isinstance(content, bytes) else json.dumps(content(json.loads(path.read_text()))).encode()
    )


def told(folder: Path, path: Path) -> DataError:
    """The error of reading the folder, which names ``path`` and a remedy."""
    with pytest.raises(DataError) as caught:
        read(folder)
    assert str(path) in caught.value.asked
    assert caught.value.found
    assert caught.value.remedy
    return caught.value


def left_out(folder: Path, path: Path) -> str:
    """The line of who reads the folder about ``path``."""
    store = Store(folder)
    for read_it in (store.measurements, store.invalid, store.failures, store.confirmations, store.baseline_training):
        read_it()
    (line,) = store.left_out()
    assert line.startswith(f"{path.parent.name}/{path.name} is left out: ")
    assert path.exists(), "who only reads moves nothing"
    return line


@pytest.mark.fault(45)
@pytest.mark.parametrize("where", ["measurements", "invalid", "confirmation", "failures", "baseline"])
def test_front_and_report_go_on_and_say_what_is_left_out(where: str, folder: Path) -> None:
    path = min((folder / where).glob("*.json"))
    damage(path, b"{")
    line = left_out(folder, path)
    assert line in unescape(make_report(folder).read_text(encoding="utf-8"))
    front = read_front(folder, resamples=10)
    assert front.pick or where != "confirmation", "a pick's confirmation is read"
    assert front.left_out == (() if where == "baseline" else (line,)), "a front has no need of the baseline's training"


@pytest.mark.fault(45)
@pytest.mark.parametrize(("where", "what"), DAMAGES)
def test_a_damaged_record_is_left_out_with_a_line(where: str, what: str, folder: Path) -> None:
    path = min((folder / where).glob("*.json"))
    damage(path, {**ANY_RECORD, **MEASUREMENT}[what])
    left_out(folder, path)


@pytest.mark.parametrize("what", ANY_RECORD)
def test_a_damaged_study_record_is_one_typed_error(what: str, folder: Path) -> None:
    damage(folder / "study.json", ANY_RECORD[what])
    told(folder, folder / "study.json")


@pytest.mark.parametrize("key", ["kind", "message", "variant", "created_utc"])
def test_a_failure_that_lacks_a_key_is_left_out(key: str, folder: Path) -> None:
    (path,) = (folder / "failures").glob("*.json")
    damage(path, lacking(key))
    assert key in left_out(folder, path)


@pytest.mark.parametrize("key", ["task_metrics", "baselines", "versions", "created_utc", "spec_folder"])
@pytest.mark.parametrize("content", ["gone", "wrong"])
def test_a_study_record_that_lacks_a_key_is_told(key: str, content: str, folder: Path) -> None:
    damage(folder / "study.json", lacking(key) if content == "gone" else changed(**{key: 5}))
    with pytest.raises(DataError, match=key) as caught:
        Store(folder).study()[key]
    assert str(folder / "study.json") in caught.value.asked
    assert caught.value.remedy


@pytest.mark.parametrize("key", ["epochs", "wall_s", "precision", "host"])
def test_a_training_that_lacks_a_key_is_left_out(key: str, folder: Path) -> None:
    path = folder / "baseline" / "training.json"
    damage(path, lacking(key))
    assert key in left_out(folder, path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_study_file_that_is_gone_or_no_text_is_told(content: bytes | None, folder: Path) -> None:
    path = folder / "study.toml"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    told(folder, path)


ODD_LINES: Final = [b"5", b"[]", b'"x"', b"null", b"{}", b'{"torn": ', b"\xff", b'{"a":' * 100_000]
ODD_TIMES: Final = [
    {"phase": "sleep", "ns": 1, "at_ns": 1, "run": "a"},
    {"phase": "measure", "ns": "x", "at_ns": 1, "run": "a"},
    {"phase": "measure", "ns": 1, "at_ns": 10**400, "run": "a"},
    {"phase": "measure", "ns": 1, "at_ns": 1, "run": []},
]


LINES: Final = [*ODD_LINES, *(json.dumps(item).encode() for item in ODD_TIMES)]


@pytest.mark.fault(45)
@pytest.mark.parametrize("line", LINES)
def test_a_damaged_line_of_the_account_is_left_out(line: bytes, folder: Path) -> None:
    path, store = folder / "account.jsonl", Store(folder)
    before = path.read_bytes()
    path.write_bytes(line + b"\n" + before)
    read(folder)
    assert len(store.times()) == 2
    assert store.left_out() == ("1 damaged line of account.jsonl left out: the time account lacks them",)
    with store.own():
        assert path.read_bytes() == before
    assert (folder / "set-aside" / "account.jsonl").read_bytes() == line + b"\n"


@pytest.mark.parametrize("line", ODD_LINES)
def test_an_opening_that_cannot_be_read_still_counts(line: bytes, folder: Path) -> None:
    path, store = folder / "confirmation" / "openings.jsonl", Store(folder)
    path.write_bytes(line + b"\n" + path.read_bytes())
    read(folder)
    with store.own():
        first, second = store.openings()
    assert "cannot be read" in first["reason"] and second["reason"] == "end"


@pytest.mark.parametrize("name", ["account.jsonl", "confirmation/openings.jsonl"])
def test_a_torn_last_line_is_left_out_and_cut_off_before_the_next(name: str, folder: Path) -> None:
    path, store = folder / name, Store(folder)
    before = path.read_bytes()
    path.write_bytes(before + b'{"at_ns": 12, "ns"')
    read(folder)
    with store.own():
        assert path.read_bytes() == before
        store.add_time("a", "measure", 1, 10)
    read(folder)


def test_a_line_after_a_torn_one_that_older_versions_left_counts(folder: Path) -> None:
    path, store = folder / "account.jsonl", Store(folder)
    path.write_bytes(path.read_bytes() + b'{"at_ns": 11, "n')
    store.add_time("a", "build", 10**9, 2 * 10**9)
    store.add_time("a", "build", 10**9, 3 * 10**9)
    assert summarise(store.times()).seconds["build"] == 2.0


@pytest.mark.fault(45)
@pytest.mark.parametrize("command", ["front", "report"])
def test_the_command_line_goes_on_and_tells_it_in_one_line(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = max((folder / "measurements").glob("*.json"))
    path.write_bytes(b"{")
    monkeypatch.setattr("sys.argv", ["edgedeploy", command, str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"measurements/{path.name} is left out: it is no JSON" in line


def as_a_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_a_loop(path: Path) -> None:
    path.symlink_to(path)


def as_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_a_huge_file(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(MOST_FILE_BYTES + 1)


def as_another_kind(path: Path) -> None:
    if path.suffix:
        path.mkdir()
    else:
        path.write_bytes(b"")


FILES_OF_OURS: Final = (
    *("study.json", "study.toml", "events.jsonl", "account.jsonl", "confirmation/openings.jsonl"),
    *("baseline/training.json", "cases.json", "index.jsonl"),
)
FOLDERS_OF_OURS: Final = ("measurements", "invalid", "failures", "confirmation")


@pytest.mark.fault(45)
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "make"),
    [
        (name, make)
        for name in FILES_OF_OURS
        for make in (as_a_pipe, as_a_loop, as_a_device, as_a_huge_file, as_another_kind)
    ]
    + [(name, make) for name in FOLDERS_OF_OURS for make in (as_a_pipe, as_a_loop, as_another_kind)],
)
def test_what_lies_in_the_place_of_ours_keeps_no_reader(name: str, make: Callable[[Path], None], folder: Path) -> None:
    """Neither waiting nor reading for ever; it is left out, or it is one typed error with its name."""
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    make(path)
    try:
        read(folder)
    except EdgeDeployError as exc:
        assert path.name in str(exc)


def test_unknown_keys_of_a_stored_record_are_ignored(folder: Path) -> None:
    path = min((folder / "measurements").glob("*.json"))
    damage(path, inside("board", colour="green"))
    damage(path, changed(colour="green"))
    read(folder)
    assert BoardInfo.from_json({**made_up.board().as_json(), "colour": "green"}) == made_up.board()


def test_failures_that_are_tried_again_are_no_damage(folder: Path) -> None:
    store = Store(folder)
    set_failures_aside(store)
    kept = list((folder / "failures" / "superseded").iterdir())
    assert len(kept) == 1
    assert store.failures() == () and store.left_out() == ()
    with Store(folder).own():
        assert kept[0].is_file() and not (folder / "set-aside").exists()
