"""Where Optuna's database may lie, and what becomes of one that another version of Optuna made."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from edgedeploy.search.history import STUDY_NAME, open_history, sqlite_url

FILE = "optuna.sqlite3"


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "a?b",
        "a#b",
        "a b",
        "50%",
        "a%3Fb",
        "a&mode=memory",
        "a?mode=memory",
        "{x}",
        "Größe",
        "日本",
        "a+b",
        "a:b",
    ],
)
def test_the_history_lies_in_its_folder_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    study = open_history(folder / FILE, ["maximize"])
    study.add_trial(optuna.trial.create_trial(value=1.0))
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing beside it"
    # The dashboard, and whoever loads the study, gets the same URL.
    loaded = optuna.load_study(study_name=STUDY_NAME, storage=sqlite_url(folder / FILE))
    assert [trial.value for trial in loaded.trials] == [1.0]


def changed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(
    "statements",
    [
        ("UPDATE alembic_version SET version_num = 'v3.0.0.d'",),
        ("UPDATE alembic_version SET version_num = 'v99.0.0'",),
    ],
    ids=["older", "newer"],
)
def test_a_history_of_another_version_is_moved_aside_and_kept(tmp_path: Path, statements: tuple[str, ...]) -> None:
    path = tmp_path / FILE
    open_history(path, ["maximize"]).add_trial(optuna.trial.create_trial(value=1.0))
    changed(path, *statements)
    before = path.read_bytes()
    study = open_history(path, ["maximize"])
    assert study.trials == []
    (kept,) = tmp_path.glob(f"{FILE}.other-version-*")
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (1,)
    assert len(kept.read_bytes()) >= len(before)
