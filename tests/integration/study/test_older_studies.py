"""Studies that earlier code made: their numbers stay what they were, and a search goes on where it ended.

A stored folder (``tests/data/studies``) is held against what the code that made it printed. A study that goes on is made by
that code where the tests run, because a search is held to the machine that it began on.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import optuna
import pytest
from fault_kit import running_jobs, wait_for
from older_code import REPO, OlderCode, cells, differences, figures, older_code, today, visible

from edgedeploy.records.artifact import MANIFEST

pytestmark = pytest.mark.beside

STUDIES: Final = REPO / "tests" / "data" / "studies"
STORED: Final = sorted(path.parent.name for path in STUDIES.glob("*/front.json"))


# -- stored folders


@pytest.fixture(params=STORED)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of a stored study, and the folder with what its own code printed. A study file that stated no margin had one of
    0.01 then, and has no verdict now."""
    printed = STUDIES / request.param
    folder = shutil.copytree(printed / "study", tmp_path / "older")
    with (folder / "study.toml").open("a") as text:
        text.write("\n[evidence]\nmargin = 0.01\n")
    return folder, printed


JUDGED_ANEW: Final = re.compile(r"/pick/(reason|accuracy/(lower|upper))|/rows/\w+/(status|confidence|dominated_by)")
"""What follows from bounds: these are lower now, and what they do not tell apart is not dominated."""


LOWER_NOW: Final = {"0.228"}
"""A bound of a report by the percentile alone, which Student's t is below."""


def by_digest(front: dict[str, Any]) -> dict[str, Any]:
    return {**front, "rows": {row["digest"]: row for row in front["rows"]}}


def test_there_are_stored_studies() -> None:
    """Of the last commit before all modules moved, at least."""
    assert "eef15fe" in STORED


def test_front_of_a_stored_study_has_the_numbers_it_had(stored: tuple[Path, Path]) -> None:
    folder, printed = stored
    before = json.loads((printed / "front.json").read_text())
    now = json.loads(today("front", folder, "--json").stdout)
    found = differences(by_digest(before), by_digest(now))
    assert [line for line in found if not JUDGED_ANEW.match(line)] == []
    table = today("front", folder).stdout
    # Not how often: a headline no longer puts a time of the baseline's own session beside the pick's.
    assert set(figures((printed / "front.txt").read_text())) - set(figures(table)) == set()


def test_report_of_a_stored_study_loses_no_number(stored: tuple[Path, Path]) -> None:
    folder, printed = stored
    today("report", folder)
    text, pictures = visible((folder / "report.html").read_text())
    *lines, last = (printed / "report.txt").read_text().splitlines()
    before = "\n".join(lines)
    assert figures(cells(before)) - figures(cells(text)) == Counter()
    assert set(figures(before)) - set(figures(text)) == LOWER_NOW
    assert f"{pictures} pictures" == last


def test_a_stored_study_whose_file_has_lax_types_opens(stored: tuple[Path, Path]) -> None:
    """Earlier code read a count of ``12.0`` and a seed in quotes; what is read and reported is the same."""
    folder, _ = stored
    before = json.loads(today("front", folder, "--json").stdout)
    text = (folder / "study.toml").read_text()
    for old, new in (("seed = 3", 'seed = "3"'), ("trials = 12", "trials = 12.0"), ("queries = 64", "queries = 64.0")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "study.toml").write_text(text)
    assert json.loads(today("front", folder, "--json").stdout) == before
    today("report", folder)
    assert (folder / "report.html").is_file()
    told = today("export", folder, "--pick", "--out", folder / "shipped", status=2).stderr
    assert "artifacts any more" in told, "its study file is not what is refused"


def test_layers_of_a_stored_variant_are_what_they_were(stored: tuple[Path, Path]) -> None:
    folder, printed = stored
    pick = json.loads((printed / "front.json").read_text())["pick"]["digest"]
    now = json.loads(today("layers", folder, "--variant", pick, "--json").stdout)
    assert differences(json.loads((printed / "layers.json").read_text()), now) == []
    assert json.loads(today("layers", folder, "--json").stdout) == now  # the pick is meant when no variant is named


# -- studies that go on

STEP_LOG: Final = "steps.log"
HOLD: Final = "hold"
"""Where this file says a number of steps, the training stays in that step."""
STEPS: Final = 2
"""Of an epoch: 16 cases in batches of 8."""

EPOCHS: Final = {"baseline": 3, "recovery": 6}


def instrumented(examples: Path, study: Path) -> None:
    """The example's task as that code's users wrote it, beside the study: it notes each step that is trained."""
    text = (examples / "squares.py").read_text()
    for old, new in (
        ("epochs=1,", f"epochs={EPOCHS['recovery']},"),
        (
            "        return nn.functional.cross_entropy",
            f'        with open(__file__.replace("squares.py", "{STEP_LOG}"), "a") as log:\n'
            '            log.write("step\\n")\n'
            f'        hold, done = (__file__.replace("squares.py", name) for name in ("{HOLD}", "{STEP_LOG}"))\n'
            "        while os.path.exists(hold) and len(open(done).readlines()) >= int(open(hold).read()):\n"
            "            time.sleep(0.01)\n"
            "        return nn.functional.cross_entropy",
        ),
        (
            "import numpy as np",
            "import os\nimport time\n\nimport numpy as np",
        ),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    study.with_name("squares.py").write_text(text)


def steps(study: Path) -> int:
    log = study.with_name(STEP_LOG)
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def older(tmp_path: Path) -> OlderCode:
    return older_code(tmp_path)


@pytest.fixture
def study(older: OlderCode, tmp_path: Path) -> Path:
    """The example of that time, small, on a board of its own on this host."""
    text = (older.examples / "squares.toml").read_text()
    for old, new in (
        ("count = 32", "count = 16"),
        ('kind = "local"', f'kind = "local"\nroot = "{tmp_path / "board"}"'),
        ("kernel = [3, 5]\n", ""),
        ("queries = 64", "queries = 16"),
        ("cold_starts = 1", "cold_starts = 0"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "squares.toml").write_text(text)
    instrumented(older.examples, folder / "squares.toml")
    return folder / "squares.toml"


def search(study: Path, out: Path, *more: str | Path) -> tuple[str | Path, ...]:
    return ("search", study, "--out", out, "--board", "here", *more)


KEPT: Final = ("measurements", "failures", "confirmation", "models", "artifacts", "baseline")


def made(out: Path) -> dict[str, tuple[str, int]]:
    """Content and time of every file that took a board's, a toolchain's or a training's time. Logs are appended to, and a
    manifest beside an artifact's folder is moved into it."""
    paths = (path for name in KEPT for path in sorted((out / name).rglob("*")) if path.suffix != ".jsonl")
    return {
        str(path.relative_to(out)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in paths
        if path.is_file() and not (path.suffix == ".json" and path.with_suffix("").is_dir())
    }


Files = dict[str, tuple[str, int]]


def is_still_there(name: str, before: Files, now: Files) -> bool:
    """As it was, or with the same content where today's code has it: the manifest of an artifact was beside its folder."""
    into_folder = re.sub(r"^(artifacts/[^/]+)\.json$", rf"\1/{MANIFEST}", name)
    if into_folder != name and name not in now:
        return now.get(into_folder, ("", 0))[0] == before[name][0]
    return now.get(name) == before[name]


def measured(out: Path) -> set[str]:
    return {path.stem for path in (out / "measurements").glob("*.json")}


def scored(out: Path) -> int:
    """How often a run of a board was evaluated, over all processes."""
    lines = (out / "account.jsonl").read_text().splitlines()
    return sum(json.loads(line)["phase"] == "evaluate" for line in lines)


def proposals(out: Path) -> list[Any]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.load_study(study_name="edgedeploy", storage=f"sqlite:///{out / 'optuna.sqlite3'}").trials


def kill_once(process: subprocess.Popen[bytes], what: str, condition: Callable[[], object]) -> None:
    """A real SIGKILL, as soon as the condition holds."""

    def due() -> object:
        assert process.poll() is None, f"it ended before {what}"
        return condition()

    wait_for(what, due, patience_s=300.0)
    process.send_signal(signal.SIGKILL)
    process.wait()


def go_on(study: Path, out: Path, before_front: Any, trials: int) -> None:
    """Today's code takes over the folder of a killed search: reads it as its own code did, goes on, makes nothing again that
    is there. The task's file stays as it was: what it imports by older names is found, and the new names are told."""
    now = json.loads(today("front", out, "--json").stdout)
    assert before_front.pop("pick") and now.pop("pick") is None, "no margin is stated: no verdict, and so no pick"
    found = differences(by_digest(before_front), by_digest(now))
    assert [line for line in found if not JUDGED_ANEW.match(line)] == []
    today("report", out, "--to", out.with_name("before.html"))
    kept, known, runs, confirmed = made(out), measured(out), scored(out), len(list(out.glob("confirmation/*.json")))
    under_way = {trial.user_attrs["variant"] for trial in proposals(out) if trial.state.name == "RUNNING"}
    assert len(under_way) == 1

    said = today(*search(study, out, "--resume", "--trials", str(trials))).stderr

    assert "has changed since it was measured" not in said, "it is the same board"
    assert "edgedeploy.protocols is no more: import Case from edgedeploy" in said
    assert "starts from the beginning" not in said and "is damaged" not in said
    files = made(out)
    assert [name for name in kept if not is_still_there(name, kept, files)] == [], "made again, or lost"
    assert known < measured(out)
    assert len(measured(out)) == trials
    new_runs = len(measured(out) - known) + len(list(out.glob("confirmation/*.json"))) - confirmed
    assert scored(out) - runs == new_runs, "a run for each new measurement, no other"

    told = [trial.user_attrs["variant"] for trial in proposals(out) if trial.state.name == "COMPLETE"]
    assert Counter(told) == Counter(dict.fromkeys(measured(out), 1)), "each told once"
    assert not [trial for trial in proposals(out) if trial.state.name == "RUNNING"]
    assert under_way <= measured(out), "what the kill fell into is lost"
    assert list((out / "training").glob("*")) == []

    front = json.loads(today("front", out, "--json").stdout)
    assert {row["digest"] for row in front["rows"]} == measured(out), "old and new on one front"
    old_rows = {row["digest"]: row for row in before_front["rows"]}
    new_rows = {row["digest"]: row for row in front["rows"]}
    for digest, row in old_rows.items():
        assert differences(row["estimates"], new_rows[digest]["estimates"]) == []
    assert front["members"]
    assert set(front["members"]) <= {path.stem for path in out.glob("confirmation/*.json")}
    today("report", out)
    text, _ = visible((out / "report.html").read_text())
    assert f"{len(measured(out))} variants" in text


@pytest.mark.slow
def test_a_study_that_older_code_was_killed_in_goes_on_in_mid_training(
    older: OlderCode, study: Path, tmp_path: Path
) -> None:
    """Three variants measured, the recovery of the fourth under way: what was trained is not trained again."""
    out = tmp_path / "out"
    baseline, recovery = STEPS * EPOCHS["baseline"], STEPS * EPOCHS["recovery"]
    half = baseline + recovery // 2
    study.with_name(HOLD).write_text(str(half))
    process = older.start(*search(study, out))
    kill_once(process, "its recovery is half done", lambda: steps(study) >= half)
    study.with_name(HOLD).unlink()
    done = steps(study)
    assert len(measured(out)) >= 2
    assert len(list((out / "training").glob("*.pt"))) == 1

    front = json.loads(older.run("front", out, "--json").stdout)
    go_on(study, out, front, trials=6)
    assert done < baseline + recovery <= steps(study) <= baseline + recovery + STEPS, "a kill costs one epoch at most"


@pytest.mark.slow
def test_a_study_that_older_code_ended_and_was_killed_in_goes_on_in_mid_measurement(
    older: OlderCode, study: Path, tmp_path: Path
) -> None:
    """Ended with a confirmation first; then gone on with, and killed while the board had a job: its lease is still held."""
    out = tmp_path / "out"
    older.run(*search(study, out, "--trials", "2"))
    assert len(list(out.glob("confirmation/*.json"))) >= 2
    process = older.start(*search(study, out, "--resume", "--trials", "6"))
    kill_once(process, "the board has a job", lambda: running_jobs(tmp_path / "board"))
    assert len(measured(out)) == 2

    front = json.loads(older.run("front", out, "--json").stdout)
    go_on(study, out, front, trials=6)
