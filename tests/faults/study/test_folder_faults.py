"""A study's folder that other programs and other people get at: links, copies, strangers' files, files of other versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import made_up
import pytest
import warm_cli
from board_kit import STUDY_LIMIT_S
from made_up_study import new_store

from edgedeploy.errors import SpecError
from edgedeploy.records import measurement
from edgedeploy.records.measurement import Failure
from edgedeploy.study import migrations
from edgedeploy.study.layout import FILES, FOLDERS
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

EXAMPLES: Final = Path(__file__).resolve().parents[3] / "docs" / "examples"
KEPT: Final = made_up.variant(precision="int8")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two measurements, a failure and a confirmation."""
    found = new_store(tmp_path / "study", [made_up.variant()])
    for variant in (made_up.variant(), KEPT):
        found.keep(made_up.measurement(variant))
    found.keep(replace(made_up.measurement(), split="confirmation"))
    found.keep_failure(Failure(made_up.variant(width=0.25), "Unsupported", "build", "no kernel", "2026-01-01T00:00:00"))
    return found


# -- links


@pytest.mark.fault(44)
@pytest.mark.parametrize("name", FILES)
def test_a_link_in_the_place_of_a_file_is_not_written_through(name: str, store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"the only copy of somebody's thesis\n")
    place = store.root / name
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(victim)
    with pytest.raises(SpecError) as caught, store.own():
        pass
    assert Path(name).name in str(caught.value) or "Too many levels" in str(caught.value)
    assert victim.read_bytes() == b"the only copy of somebody's thesis\n"


@pytest.mark.fault(44)
@pytest.mark.parametrize("name", FOLDERS)
def test_a_link_in_the_place_of_a_folder_is_refused(name: str, store: Store, tmp_path: Path) -> None:
    elsewhere, place = tmp_path / "elsewhere", store.root / name
    shutil.rmtree(place, ignore_errors=True)
    elsewhere.mkdir()
    place.symlink_to(elsewhere)
    with pytest.raises(SpecError, match=f"{name} in it is a link"), store.own():
        pass
    assert list(elsewhere.iterdir()) == []


@pytest.mark.fault(44)
@pytest.mark.parametrize("name", ["models/6feb66ca", "artifacts/onnxruntime-float32", "inputs/selection.npz"])
def test_a_link_among_what_can_be_made_again_is_set_aside(name: str, store: Store, tmp_path: Path) -> None:
    elsewhere, place = tmp_path / "elsewhere", store.root / name
    elsewhere.mkdir()
    place.parent.mkdir()
    place.symlink_to(elsewhere)
    with store.own():
        assert not place.is_symlink()
        place.mkdir()
    assert "it is a link" in store.left_out()[0]
    assert (store.root / "set-aside" / name.replace("/", "--")).is_symlink()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.fault(44)
def test_lines_are_appended_to_no_link_that_comes_later(store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    with store.own():
        (store.root / "account.jsonl").symlink_to(victim)
        with pytest.raises(OSError, match="Too many levels"):
            store.add_time("a", "measure", 1, 1)
    assert victim.read_text() == "mine\n"


@pytest.mark.fault(44)
def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(store: Store) -> None:
    os.mkfifo(store.root / "account.jsonl")
    with pytest.raises(SpecError, match="is no file"), store.own():
        pass


# -- files that are no evidence


def stem_of(store: Store) -> str:
    return f"{store.root}/measurements/{KEPT.digest}"


def copied(to: str) -> Callable[[Store], Path]:
    """What a sync tool or an editor leaves beside the file."""

    def make(store: Store) -> Path:
        source = Path(f"{stem_of(store)}.json")
        return Path(shutil.copy(source, source.with_name(to.replace("X", KEPT.digest))))

    return make


def changed(change: Callable[[dict[str, Any]], dict[str, Any]], name: str | None = None) -> Callable[[Store], Path]:
    def make(store: Store) -> Path:
        source = Path(f"{stem_of(store)}.json")
        target = source.with_name(name or source.name)
        target.write_text(json.dumps(change(json.loads(source.read_text()))))
        return target

    return make


def emptied(store: Store) -> Path:
    path = Path(f"{stem_of(store)}.json")
    path.write_bytes(b"")
    return path


def halved(store: Store) -> Path:
    path = Path(f"{stem_of(store)}.json")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def linked(store: Store) -> Path:
    path = Path(f"{stem_of(store)}.json")
    away = path.rename(store.root / "away.json")
    path.symlink_to(away)
    return path


def of_another_study(store: Store) -> Path:
    other = new_store(store.root.parent / "other", [])
    for number, at in enumerate((store, other)):
        study = json.loads(at.study_path.read_text())
        at.study_path.write_text(json.dumps({**study, "id": f"study {number}"}))
    other.keep(made_up.measurement(KEPT))
    return Path(shutil.copy(other.root / "measurements" / f"{KEPT.digest}.json", f"{stem_of(store)}.json"))


def of_another_folder(store: Store) -> Path:
    name = f"{made_up.variant().digest}.json"
    return Path(shutil.copy(store.root / "confirmation" / name, store.root / "measurements" / name))


STRAYS: Final[dict[str, tuple[Callable[[Store], Path], str]]] = {
    "empty": (emptied, "it is empty"),
    "half": (halved, "it is no JSON"),
    "newer": (changed(lambda data: {**data, "schema": 99}), "it is of version 99, and this edgedeploy reads up to"),
    "without a version": (changed(lambda data: {**data, "schema": None}), "its version"),
    "foreign": (of_another_study, "it is of another study"),
    "of another folder": (of_another_folder, "it is no valid measurement of the search"),
    "stray": (changed(dict, "0123456789abcdef.json"), "its name is not the digest of what it holds"),
    "conflicted": (copied("X (conflicted copy 2026-01-01).json"), "a copy that another program made"),
    "syncthing's": (copied("X.sync-conflict-20260101-101500-ABCDEFG.json"), "a copy that another program made"),
    "emacs's backup": (copied("X.json~"), "a copy that another program made"),
    "emacs's lock": (copied(".#X.json"), "a copy that another program made"),
    "the second of two": (copied("X(1).json"), "a copy that another program made"),
    "something else": (copied("notes.json"), "no record has such a name"),
    "a link": (linked, "it is a link"),
}


@pytest.mark.fault(45)
@pytest.mark.parametrize("kind", STRAYS)
def test_a_stray_file_is_left_out_by_readers_and_set_aside_by_the_owner(kind: str, store: Store) -> None:
    make, why = STRAYS[kind]
    before = {item.digest for item in store.measurements()}
    stray = make(store)
    content = stray.read_bytes()
    named = next((digest for digest in before if stray.name == f"{digest}.json"), None)

    reader = Store(store.root)
    found = {item.digest for item in reader.measurements()}
    (line,) = reader.left_out()
    assert line.startswith(f"measurements/{stray.name} is left out: ") and why in line
    assert os.path.lexists(stray) and not (store.root / "set-aside").exists(), "who reads moves nothing"
    assert found == before - {named}
    assert named is None or reader.measurement(named) is None

    owner = Store(store.root)
    with owner.own():
        (moved,) = (store.root / "set-aside").iterdir()
        assert moved.read_bytes() == content
        assert moved.name == f"measurements--{stray.name}"
        assert f"it is now set-aside/{moved.name}" in owner.left_out()[0]
        assert {item.digest for item in owner.measurements()} == before - {named}
    assert Store(store.root).left_out() == ()


@pytest.mark.fault(45)
def test_what_is_damaged_during_a_run_is_set_aside_and_not_written_over(store: Store) -> None:
    with store.own():
        path = emptied(store)
        assert store.measurement(KEPT.digest) is None
        store.keep(made_up.measurement(KEPT))
        assert store.measurement(KEPT.digest) is not None
        emptied(store)
        assert len(store.measurements()) == 1
    assert {item.name for item in (store.root / "set-aside").iterdir()} == {
        f"measurements--{path.name}",
        f"measurements--{path.name}.2",
    }


@pytest.mark.fault(45, 54)
def test_a_newer_study_is_refused_by_what_it_is(store: Store) -> None:
    study = json.loads(store.study_path.read_text())
    store.study_path.write_text(json.dumps({**study, "schema": 99}))
    with pytest.raises(Exception, match=r"version 99, and this edgedeploy reads up to 1: update edgedeploy"):
        store.study()


@pytest.mark.fault(54)
def test_older_files_are_read_through_the_chain_of_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """MADE UP steps: nothing had to be renamed yet. The files of version 1 stay as they are, new ones are of today."""
    old = json.loads(Path(f"{stem_of(store)}.json").read_text())

    def renamed(data: Any) -> dict[str, Any]:
        return {**data, "notes": [*data["notes"], f"read from version {data['schema']}"]}

    assert migrations.latest("measurement") == migrations.latest("failure") == measurement.SCHEMA_VERSION
    monkeypatch.setitem(migrations.STEPS, "measurement", (renamed, renamed))
    monkeypatch.setattr(measurement, "SCHEMA_VERSION", 3)
    found = store.measurement(KEPT.digest)
    assert found is not None
    assert found.notes[-2:] == ("read from version 1", "read from version 2")
    assert json.loads(Path(f"{stem_of(store)}.json").read_text()) == old
    store.keep(replace(found, notes=()))
    assert json.loads(Path(f"{stem_of(store)}.json").read_text())["schema"] == 3
    again = store.measurement(KEPT.digest)
    assert again is not None and again.notes == ()


# -- a whole search


@pytest.mark.fault(45)
def test_a_search_measures_again_what_it_set_aside(tmp_path: Path) -> None:
    """Front and report go on without it, and say so."""
    shutil.copy(EXAMPLES / "squares.py", tmp_path)
    text = (EXAMPLES / "squares.toml").read_text().replace(', "openvino"]', "]").replace("count = 32", "count = 8")
    (tmp_path / "squares.toml").write_text(text.replace("queries = 64", "queries = 16"))

    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        argv = [*warm_cli.command(), *arguments]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=STUDY_LIMIT_S)
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
        return done

    search = ("search", "squares.toml", "--out", "out", "--board", "here", "--trials", "2")
    run(*search)
    first, second = sorted((tmp_path / "out" / "measurements").iterdir())
    shutil.copy(first, first.with_name(f"{first.stem} (conflicted copy 2026-01-01).json"))
    second.write_bytes(b"")
    (tmp_path / "out" / "study.toml").write_bytes(b"\xff")
    run("front", "out", status=2)
    said = run(*search, "--resume").stderr
    assert f"{second.name} is left out: it is empty" in said
    assert second.stat().st_size > 0
    assert {path.name for path in (tmp_path / "out" / "set-aside").iterdir()} == {
        f"measurements--{second.name}",
        f"measurements--{first.stem} (conflicted copy 2026-01-01).json",
    }
    assert len(json.loads(run("front", "out", "--json").stdout)["rows"]) == 2
