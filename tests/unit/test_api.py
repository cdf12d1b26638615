"""The front door: which folder is the same study, and the options of a run, old and new."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
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
        ({"trials": 0}, "trials: expected a number >= 1, but got 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        RunOptions(**options)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://lab:hunter2@db.lab/optuna", "postgresql+psycopg://lab:(left out)@db.lab/optuna"),
        ("postgresql+psycopg://lab:@db.lab:5432/optuna", "postgresql+psycopg://lab:(left out)@db.lab:5432/optuna"),
        (
            "postgresql+psycopg://lab@db.lab/o?password=hunter2&a=1",
            "postgresql+psycopg://lab@db.lab/o?password=(left out)&a=1",
        ),
        ("postgresql+psycopg://lab@db.lab:5432/optuna", "postgresql+psycopg://lab@db.lab:5432/optuna"),
    ],
)
def test_options_are_shown_without_passwords(url: str, shown: str) -> None:
    assert RunOptions(storage=url, resume=True).shown() == {"storage": shown, "resume": True}
