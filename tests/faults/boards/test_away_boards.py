"""Boards that do not answer at the start of a study, or between two of its jobs: real SSH servers that are off."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from board_kit import EXAMPLES, STUDY_LIMIT_S
from fault_kit import running_jobs, wait_for
from sshd_kit import SwitchedSshd

import edgedeploy
from edgedeploy import RunOptions
from edgedeploy.errors import Unreachable
from edgedeploy.study.events import Event
from edgedeploy.study.store import Store
from edgedeploy.study.warmstart import PREDICTED

pytestmark = pytest.mark.waiting

LAPSE_S = 3.0
"""How long a server is off after it was missed: longer than the pause between two attempts to reach it."""


def study_of(folder: Path, boards: str) -> Path:
    """The example with these boards: four variants without training, few cases."""
    text = (EXAMPLES / "squares.toml").read_text()
    start, end = text.index("[[boards]]"), text.index("[space]")
    text = text[:start] + boards + text[end:]
    for old, new in (
        (', "openvino"]', "]"),
        ("count = 32", "count = 8"),
        ("width = [1.0, 0.5]\n", ""),
        ("cold_starts = 1", "cold_starts = 0"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    shutil.copy(EXAMPLES / "squares.py", folder)
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


def watched(told: list[str], on: Callable[[Event], None]) -> Callable[[Event], None]:
    def observer(event: Event) -> None:
        if event.kind == "note":
            told.append(event.text)
        on(event)

    return observer


@pytest.mark.fault(43)
def test_board_is_waited_for_at_the_start_and_between_two_jobs(tmp_path: Path) -> None:
    told: list[str] = []
    with SwitchedSshd(tmp_path / "sshd") as server:
        study = edgedeploy.load_study(study_of(tmp_path, server.table("cart", tmp_path / "root", "60 s")))

        def on(event: Event) -> None:
            if "waiting" in event.text:
                threading.Timer(LAPSE_S, server.on).start()
            if event.kind == "trial" and event.done == 1:
                server.off()

        options = RunOptions(out=tmp_path / "out", trials=2, confirm=False)
        result = study.run(options, observer=watched(told, on))
    assert result.evaluated == 2
    assert len(Store(tmp_path / "out").measurements()) == 2
    waits = [line for line in told if line.startswith("board cart: ") and "s more for it (`away`)" in line]
    assert len(waits) == len([line for line in told if "it is back after" in line]) == 2


@pytest.mark.fault(43)
def test_board_that_stays_away_ends_the_run_after_its_limit(tmp_path: Path) -> None:
    with SwitchedSshd(tmp_path / "sshd") as server:
        study = edgedeploy.load_study(study_of(tmp_path, server.table("cart", tmp_path / "root", "1 s")))
        with pytest.raises(Unreachable, match=r"waited \d+ s for it.*`away` in the board's table"):
            study.run(RunOptions(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(43)
def test_waiting_ends_with_ctrl_c(tmp_path: Path) -> None:
    with SwitchedSshd(tmp_path / "sshd") as server:
        study = study_of(tmp_path, server.table("cart", tmp_path / "root", "10 min"))
        argv = [sys.executable, "-m", "edgedeploy", "search", str(study), "--out", str(tmp_path / "out")]
        with subprocess.Popen(
            argv,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a background job ignores it
        ) as process:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "waiting" in line)
            process.send_signal(signal.SIGINT)
            assert process.wait(STUDY_LIMIT_S) == 4
    assert "board cart: " in line and "600 s more" in line


@pytest.mark.fault(43)
def test_a_session_that_is_cut_costs_a_warm_started_study_nothing(tmp_path: Path) -> None:
    """The board vanishes while the third variant runs on it, and comes back for the next run, when the first study is
    gone."""
    out, root, told = tmp_path / "out", tmp_path / "root", list[str]()
    with SwitchedSshd(tmp_path / "sshd") as server:
        server.on()
        path = study_of(tmp_path, '[[boards]]\nname = "here"\nkind = "local"\n\n' + server.table("cart", root, "1 s"))
        first = RunOptions(out=tmp_path / "first", trials=3, board="here", confirm=False)
        edgedeploy.load_study(path).run(first)
        path.write_text(path.read_text().replace("[budget]", '[search]\nwarm_start = "first"\n\n[budget]'))
        study = edgedeploy.load_study(path)
        study.run(RunOptions(out=out, trials=1, board="cart", confirm=False))
        assert len(predicted(out)) == 2

        def on(event: Event) -> None:
            if event.kind == "phase" and event.done == 2 and event.text.endswith("build and measure"):
                threading.Thread(target=cut).start()

        def cut() -> None:
            wait_for("a job on the board", lambda: running_jobs(root))
            server.vanish()

        on_cart = RunOptions(out=out, trials=3, board="cart", confirm=False, resume=True)
        with pytest.raises(Unreachable, match="waited"):
            study.run(on_cart, observer=watched(told, on))
        measured = {item.digest for item in Store(out).measurements()}
        assert len(measured) == 2 and Store(out).failures() == ()
        (left,) = predicted(out)
        assert left not in measured, "nothing that is measured is predicted beside it"

        server.on()
        shutil.move(tmp_path / "first", tmp_path / "gone")
        result = study.run(on_cart, observer=watched(told, lambda event: told.append(event.text)))
    now = Store(out).measurements()
    assert (result.evaluated, result.reason) == (3, "trials")
    assert {item.digest for item in now} == {*measured, left} and len(now) == 3
    assert not [line for line in told if line.startswith("training")]
    assert predicted(out) == []


def predicted(out: Path) -> list[str]:
    """Variants of which a study for a second board thinks something without having measured it there."""
    if not (out / PREDICTED).exists():
        return []
    return [item["variant_digest"] for item in json.loads((out / PREDICTED).read_text())["predicted"]]


@pytest.mark.fault(43)
def test_the_others_begin_and_who_comes_back_joins(tmp_path: Path) -> None:
    """One board is there, one comes after the first variant, and one never comes."""
    told: list[str] = []
    with (
        SwitchedSshd(tmp_path / "one") as one,
        SwitchedSshd(tmp_path / "two") as two,
        SwitchedSshd(tmp_path / "three") as three,
    ):
        one.on()
        joined = threading.Event()
        tables = [
            one.table("one", tmp_path / "root1", "60 s"),
            two.table("two", tmp_path / "root2", "90 s"),
            three.table("three", tmp_path / "root3", "1 s"),
        ]
        study = edgedeploy.load_study(study_of(tmp_path, "".join(tables)))

        def on(event: Event) -> None:
            if event.kind == "trial" and event.done == 1:
                two.on()
                one.off()  # which is away now, and the other is to go on
            if "board two joins" in event.text:
                joined.set()
            if event.kind == "trial" and event.done == 2:
                one.on()

        result = study.run(
            RunOptions(out=tmp_path / "out", boards=("one", "two", "three"), trials=3, confirm=False),
            observer=watched(told, on),
        )
    assert result.evaluated == 3
    assert joined.is_set()
    assert [line for line in told if "three" in line and "the study goes on with" in line]
    kept = json.loads((tmp_path / "out" / "study.json").read_text())["boards"]
    assert kept["one"] == kept["two"] != "" == kept["three"]
    assert {item.board.name for item in Store(tmp_path / "out").measurements()} >= {"one", "two"}
