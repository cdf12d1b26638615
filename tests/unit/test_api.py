"""The front door: which folder is the same study, and the options of a run, old and new."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import edgedeploy
from edgedeploy import RunOptions, SpecError, Study
from edgedeploy.files import write_json

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
STORED = Path(__file__).resolve().parents[1] / "data" / "studies"


class Accepted(Exception):
    """The folder was taken for this study's: what comes next is to look at boards."""


@pytest.fixture(autouse=True)
def no_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(*_: Any) -> None:
        raise Accepted

    monkeypatch.setattr("edgedeploy.api.prepare", prepare)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    shutil.copy(EXAMPLES / "squares.toml", tmp_path)
    return edgedeploy.load_study(tmp_path / "squares.toml")


@pytest.fixture
def folder(study: Study, tmp_path: Path) -> Path:
    """What a search leaves, as far as the question goes whose it is."""
    made = tmp_path / "out"
    made.mkdir()
    shutil.copy(EXAMPLES / "squares.toml", made / "study.toml")
    write_json(made / "study.json", {"schema": 1, "board": "loopback", "spec_digest": study.digest})
    return made


def begun_by_other_code(folder: Path) -> None:
    """The digest is what code with other keys or other defaults makes of the same file."""
    kept = json.loads((folder / "study.json").read_text())
    write_json(folder / "study.json", {**kept, "spec_digest": "0123456789abcdef"})


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# -- whose folder it is


def test_a_folder_goes_on_with_its_study(study: Study, folder: Path) -> None:
    with pytest.raises(Accepted):
        study.run(RunOptions(out=folder, resume=True))


@pytest.fixture
def lax(folder: Path) -> Path:
    """As earlier code took it: a count as a float, a number as text."""
    change(folder / "study.toml", "trials = 6", "trials = 6.0")
    change(folder / "study.toml", "seed = 1", 'seed = "1"')
    return folder


def test_a_folder_whose_study_file_has_the_types_of_earlier_code_goes_on(study: Study, lax: Path) -> None:
    with pytest.raises(Accepted):
        study.run(RunOptions(out=lax, resume=True))
    with pytest.raises(Accepted):
        edgedeploy.load_study(lax / "study.toml").run(RunOptions(out=lax, resume=True))


def test_a_new_study_file_has_the_types_of_toml(lax: Path, tmp_path: Path) -> None:
    shutil.copy(lax / "study.toml", tmp_path / "study.toml")
    with pytest.raises(SpecError, match=r"study\.toml:\d+: study.seed: Input should be a valid integer"):
        edgedeploy.load_study(tmp_path / "study.toml")


def test_a_folder_of_code_with_other_defaults_goes_on_while_its_study_file_says_the_same(
    study: Study, folder: Path
) -> None:
    begun_by_other_code(folder)
    change(folder / "study.toml", "trials = 6", "trials = 7")
    with pytest.raises(Accepted):
        study.run(RunOptions(out=folder, resume=True))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed = 1", "seed = 2"),
        ("[measure]", "[measure]\nkey_of_older_code = 3"),
        ("[study]", "[study"),
    ],
)
def test_a_folder_whose_study_file_says_something_else_is_refused(
    old: str, new: str, study: Study, folder: Path
) -> None:
    begun_by_other_code(folder)
    change(folder / "study.toml", old, new)
    with pytest.raises(SpecError, match="it holds another study"):
        study.run(RunOptions(out=folder, resume=True))


@pytest.mark.parametrize("code", sorted(path.name for path in STORED.iterdir() if path.is_dir()))
def test_a_folder_that_earlier_code_made_goes_on(code: str) -> None:
    folder = STORED / code / "study"
    with pytest.raises(Accepted):
        edgedeploy.load_study(folder / "study.toml").run(RunOptions(out=folder, resume=True))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_background_cores = 64.0", "max_background_cores = 80.0"),
        ("max_drift = 50.0", "max_drift = 60.0\nretries = 0\ntime_limit = '2 h'"),
    ],
)
def test_a_folder_goes_on_under_wider_limits_of_a_valid_run(
    old: str, new: str, study: Study, folder: Path, tmp_path: Path
) -> None:
    change(tmp_path / "squares.toml", old, new)
    with pytest.raises(Accepted):
        edgedeploy.load_study(tmp_path / "squares.toml").run(RunOptions(out=folder, resume=True))
    change(tmp_path / "squares.toml", "queries = 64", "queries = 72")
    with pytest.raises(SpecError, match=r"it holds another study: .* \(measure\.queries\)"):
        edgedeploy.load_study(tmp_path / "squares.toml").run(RunOptions(out=folder, resume=True))


# -- options


def test_keywords_of_before_work_and_say_the_new_way(study: Study, folder: Path) -> None:
    with pytest.raises(SpecError, match="it holds a study already"), pytest.warns(FutureWarning) as said:
        study.run(folder, trials=3, boards=["loopback"], confirm=False)
    (warning,) = said
    options = RunOptions(out=str(folder), trials=3, boards=["loopback"], confirm=False)
    new = f"run(RunOptions(out={str(folder)!r}, trials=3, boards=['loopback'], confirm=False))"
    assert str(warning.message) == f"Study.run takes RunOptions now: {new}"
    assert warning.filename == __file__
    assert eval(new.removeprefix("run"), {"RunOptions": RunOptions}) == options


def test_options_and_keywords_together_are_a_mistake(study: Study, folder: Path) -> None:
    with pytest.raises(TypeError, match="RunOptions, or keywords, not both: trials"):
        study.run(RunOptions(out=folder), trials=3)
    with pytest.raises(TypeError, match="trails"):
        study.run(trails=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"board": "a", "boards": ["b", "c"]}, "board and boards: both were given"),
        ({"boards": "a,b"}, "a list of names is expected, but got 'a,b'"),
        ({"boards": 3}, "a list of names is expected, but got 3"),
        ({"boards": ["a", 3]}, "a list of names is expected, but got"),
        ({"boards": ["a", "b", "a"]}, "boards: a stands twice"),
        ({"board": 3}, "board: a text is expected, but got int"),
        ({"storage": b"secret"}, "storage: a text is expected, but got bytes"),
        ({"dask": 8786}, "dask: a text is expected, but got int"),
        ({"dask": "tcp://h:8786", "board": "a"}, "dask and board or boards: both were given"),
        ({"dask": "tcp://h:8786", "boards": ["a"]}, "dask and board or boards: both were given"),
        ({"trials": 0}, "trials: expected a number >= 1, but got 0"),
        ({"trials": True}, "trials: expected a whole number >= 1, but got True"),
        ({"trials": 2.0}, "trials: expected a whole number >= 1, but got 2.0"),
        ({"trials": "2"}, "trials: expected a whole number >= 1, but got '2'"),
        ({"resume": "no"}, "resume: True or False is expected, but got 'no'"),
        ({"confirm": 0}, "confirm: True or False is expected, but got 0"),
        ({"out": 3}, "out: a path is expected, but got 3"),
        ({"out": "a\0b"}, "out: a path is expected, but got"),
    ],
)
def test_options_that_are_wrong_or_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        RunOptions(**options)
    assert caught.value.remedy
    assert "secret" not in str(caught.value)


def test_an_observer_that_cannot_be_called_is_refused_before_anything_is_written(study: Study, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="observer: something to call with each event is expected, but got 3"):
        study.run(RunOptions(out=tmp_path / "new"), observer=3)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://lab:hunter2@db.lab/optuna", "postgresql+psycopg://(left out)"),
        ("postgresql+psycopg://lab@db.lab:5432/optuna", "postgresql+psycopg://(left out)"),
        ("postgresql://me:a/hunter2@h", "postgresql://(left out)"),
        ("postgresql://h/db?PASSWORD=hunter2", "postgresql://(left out)"),
        ("postgresql://h/db?pass%77ord=hunter2", "postgresql://(left out)"),
        ("host=h password=hunter2", "a database"),
        ("me:hunter2@h/db", "a database"),
    ],
)
@pytest.mark.filterwarnings("always")
def test_of_a_storage_nothing_is_shown_but_its_scheme(url: str, shown: str, study: Study, tmp_path: Path) -> None:
    options = RunOptions(storage=url, resume=True)
    assert options.shown() == {"storage": shown, "resume": True}
    assert "hunter2" not in repr(options)
    with pytest.warns(FutureWarning) as said, pytest.raises((SpecError, Accepted)):
        study.run(tmp_path / "new", storage=url)
    assert "hunter2" not in "".join(str(warning.message) for warning in said)


@pytest.mark.parametrize("where", ["option", "study file"])
def test_a_refused_storage_leaves_nothing_behind(
    where: str, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, out = "postgresql+psycopg://me:hunter2@db.lab/optuna", tmp_path / "new"
    options = RunOptions(out=out, storage=url if where == "option" else None)
    if where == "study file":
        change(tmp_path / "squares.toml", "[study]", f'[study]\nstorage = "{url}"')
        study = edgedeploy.load_study(tmp_path / "squares.toml")
    ready = SimpleNamespace(boards=[], notes=(), left_out=())
    monkeypatch.setattr("edgedeploy.api.prepare", lambda *_: ready)
    monkeypatch.setattr(Study, "_resolved", lambda *_: {"spec_digest": "0"})
    with pytest.raises(SpecError, match="there is a password in it") as caught:
        study.run(options)
    assert "hunter2" not in str(caught.value)
    assert not out.exists()
