"""The history of proposals on a real PostgreSQL server, on a socket in a folder of its own, that is killed in the middle."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import optuna
import pytest
from fault_kit import wait_for
from made_up_search import SPACE, landscape

from edgedeploy.errors import Quarantined, SpecError, StorageError
from edgedeploy.lab.crew import Crew, Post
from edgedeploy.records.variant import Variant
from edgedeploy.runtime.processes import start_ticks
from edgedeploy.search import history
from edgedeploy.search.history import Server, server_at
from edgedeploy.search.loop import Outcome, Search

pytestmark = pytest.mark.beside

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'edgedeploy[lab]'")


class Database:
    """A server that an unprivileged user runs."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self.url = f"postgresql+psycopg://lab@/postgres?host={folder}"

    def run(self, program: str, *arguments: str) -> None:
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
        argv = [str(self._programs / program), "-D", str(self._folder / "data"), *arguments]
        with (self._folder / "output").open("ab") as output:
            subprocess.run(argv, check=True, stdout=output, stderr=output, cwd=self._folder, timeout=120, **user)

    def start(self) -> None:
        """Again and again: the killed server's last processes may still hold its memory."""
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off"
        give_up_s = time.monotonic() + 60
        while True:
            try:
                self.run("pg_ctl", "-l", str(self._folder / "log"), "-w", "-o", options, "start")
                return
            except subprocess.CalledProcessError:
                assert time.monotonic() < give_up_s, (self._folder / "log").read_text()
                time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL to the server: its connections are gone, nobody says goodbye."""
        pid = int((self._folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)
        wait_for("the server to end", lambda: start_ticks(pid) is None)


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    found = [Path(path).parent for path in (shutil.which("initdb"),) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if not found:
        pytest.skip("no PostgreSQL on this machine: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="edgedeploy-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if os.getuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        server = Database(found[0], folder)
        server.run("initdb", "-U", "lab", "-A", "trust", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.run("pg_ctl", "-m", "immediate", "-w", "stop")


class Boards:
    """Two SIMULATED boards and their evidence."""

    def __init__(self, place: Server) -> None:
        self.place = place
        self.evidence: dict[str, Outcome] = {}
        self.runs: list[str] = []
        self.variants: list[Variant] = []
        self.strike_at = -1
        self.strike = lambda: None

    def evaluate(self, variant: Variant) -> Outcome:
        outcome = landscape(variant)
        self.evidence[variant.digest] = outcome
        self.runs.append(variant.digest)
        self.variants.append(variant)
        if len(self.runs) == self.strike_at:
            self.strike()
        return outcome

    def search(self, trials: int) -> str:
        search = Search(
            storage=self.place,
            space=SPACE,
            directions=("maximize", "minimize"),
            seed=3,
            lookup=lambda variant: self.evidence.get(variant.digest),
            evidence=lambda: list(self.variants),
            clock=nullcontext,
        )
        posts = [Post(name, self.evaluate, lambda cause: Quarantined("board", cause)) for name in "ab"]
        with Crew(posts) as crew:
            return search.run(crew, trials=trials, deadline_s=time.monotonic() + 200).reason

    def told(self) -> list[str]:
        study = optuna.load_study(study_name=self.place.study, storage=self.place.url)
        return [trial.user_attrs["variant"] for trial in study.trials if trial.state.name == "COMPLETE"]


def test_studies_share_a_server_and_resume_on_it(database: Database) -> None:
    first, second = (Boards(server_at(database.url, name)) for name in ("first", "second"))
    first.search(4)
    second.search(3)
    first.search(6)
    assert sorted(first.told()) == sorted(first.runs)
    assert len(set(first.runs)) == len(first.runs) == 6
    assert sorted(second.told()) == sorted(second.runs)


def test_a_server_that_is_killed_and_comes_back_loses_and_doubles_nothing(database: Database) -> None:
    boards = Boards(server_at(database.url, "killed"))

    def strike() -> None:
        database.kill()
        database.start()

    boards.strike_at, boards.strike = 3, strike
    assert boards.search(7) == "trials"
    assert len(set(boards.runs)) == len(boards.runs) == 7
    assert sorted(boards.told()) == sorted(boards.runs)


def test_a_server_that_stays_away_stops_the_study_and_the_next_run_knows_what_was_measured(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SERVER_PAUSES_S", (0.1, 0.1))
    boards = Boards(server_at(database.url, "away"))
    boards.strike_at, boards.strike = 4, database.kill
    with pytest.raises(StorageError, match="See to the server"):
        boards.search(6)
    database.start()
    boards.strike_at = -1
    assert boards.search(6) == "trials"
    assert len(set(boards.runs)) == len(boards.runs) == 6
    assert set(boards.told()) == set(boards.runs)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql+psycopg://lab:secret@db/optuna", "there is a password in it"),
        ("postgresql+psycopg://lab@db/optuna?password=secret", "there is a password in it"),
        ("postgresql+psycopg://lab@db/optuna?PassWord=secret", "there is a password in it"),
        ("postgresql+psycopg://lab@db/optuna?pass%77ord=secret", "there is a password in it"),
        ("postgresql+psycopg://lab@db/optuna?sslpassword=secret", "there is a password in it"),
        ("postgresql+psycopg://lab@db/optuna?SSL%70assword=secret", "there is a password in it"),
        ("postgresql+psycopg://lab:%73ecret@db/optuna", "there is a password in it"),
        ("postgresql+psycopg://lab%3Asecret@db/optuna", "there is a password in it"),
        ("postgresql+psycopg://lab@db/password%3Dsecret", "an address of its own"),
        ("postgresql+psycopg://lab@db/optuna?passfile=/home/secret", "its option 'passfile'"),
        ("postgresql+psycopg://lab@db/optuna?service=secret", "its option 'service'"),
        ("postgresql+psycopg://lab@db/optuna?servicefile=/secret", "its option 'servicefile'"),
        ("postgresql+psycopg://lab@db/optuna?options=-c%20a%3Dsecret", "its option 'options'"),
        ("postgresql+psycopg://lab@db/optuna?sslkey=/secret", "its option 'sslkey'"),
        ("postgresql+psycopg://lab@db/optuna?dbname=postgres://a:secret@b", "its option 'dbname'"),
        ("postgresql://me:secret%zz@[::1:1/db", "Could not parse"),
        ("postgresql+psycopg://me:1@db:secret/optuna", "Could not parse"),
        ("mysql://lab@db/optuna", "its driver is 'mysql'"),
        ("no url", "Could not parse"),
    ],
)
def test_a_url_that_must_not_be_used_is_refused(url: str, found: str) -> None:
    with pytest.raises(SpecError, match=found) as caught:
        server_at(url, "study")
    assert "secret" not in str(caught.value)
