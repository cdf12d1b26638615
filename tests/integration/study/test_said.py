"""What a finished study says, on a real one in a folder with an awkward name: its report's command, its log, its history."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import optuna
import pytest
import warm_cli
from board_kit import STUDY_LIMIT_S

import edgedeploy
from edgedeploy.api import StudyResult
from edgedeploy.search.history import STUDY_NAME, sqlite_url
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"


def edgedeploy_says(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [*warm_cli.command(), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=STUDY_LIMIT_S)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    place = tmp_path_factory.mktemp("said") / "it's a study"
    place.mkdir()
    for name in ("squares.py", "squares.toml"):
        shutil.copy(EXAMPLES / name, place)
    out = place.parent / "out?a=b #c 100% {ü}"
    options = edgedeploy.RunOptions(out=out, trials=2, board="here", confirm=False)
    return edgedeploy.load_study(place / "squares.toml").run(options)


def test_nothing_lies_beside_the_folder_and_the_history_opens(result: StudyResult) -> None:
    place = result.folder.parent
    assert {path.name for path in place.iterdir()} <= {
        "it's a study",
        result.folder.name,
        f"{result.folder.name}-again",
    }
    study = optuna.load_study(study_name=STUDY_NAME, storage=sqlite_url(result.folder / "optuna.sqlite3"))
    assert len([trial for trial in study.trials if trial.state.name == "COMPLETE"]) == 2


def test_every_variant_is_a_file_that_is_there(result: StudyResult) -> None:
    said = json.loads(edgedeploy_says("front", result.folder, "--json").stdout)
    assert said["pick"] is None and said["decision"]["featured"] in said["members"]
    assert all((result.folder / row["file"]).is_file() for row in said["rows"])
    assert said["failures"] == [] and said["ended_early"] is None
    assert result.front.ended is None


def test_the_models_that_the_report_names_are_there(result: StudyResult) -> None:
    page = html.unescape(result.report().read_text())
    named = {found.rstrip(".") for found in re.findall(r"(?:models|artifacts)/[\w.-]+/[\w.-]+", page)}
    assert {path.partition("/")[0] for path in named} == {"models", "artifacts"}
    assert all((result.folder / path).is_file() for path in named)


def test_the_command_of_the_report_does_the_study_again(result: StudyResult) -> None:
    page = html.unescape(result.report().read_text())
    (line,) = [text for text in page.splitlines() if text.lstrip().startswith("edgedeploy search ")]
    command = shlex.split(re.sub(r"<[^>]*>.*", "", line))
    assert command[0] == "edgedeploy" and f"# edgedeploy {edgedeploy.__version__}" in page
    again = edgedeploy_says(*command[1:], "--no-confirm")
    assert again.returncode in (0, 1), again.stderr
    out = Path(command[command.index("--out") + 1])
    before, now = ({item.digest for item in Store(folder).measurements()} for folder in (result.folder, out))
    assert now == before
    assert Store(out).study_text() == Store(result.folder).study_text()


@pytest.mark.fault(55)
def test_changed_code_is_refused_then_kept_and_told(result: StudyResult, tmp_path: Path) -> None:
    """The last test of the study: the task's file is another one from here on."""
    task = result.folder.parent / "it's a study" / "squares.py"
    task.write_text(task.read_text() + "\n# another version\n")
    study = task.with_name("squares.toml")
    search = ("search", study, "--out", result.folder, "--resume", "--board", "here", "--no-confirm", "--trials", "3")
    refused = edgedeploy_says(*search)
    assert refused.returncode == 2
    assert "squares.py changed" in refused.stderr and "--task-changed" in refused.stderr
    allowed = edgedeploy_says(*search, "--task-changed")
    assert allowed.returncode in (0, 1), allowed.stderr
    assert "Two versions of the task are on one front: 1 of 3 variants" in allowed.stdout.replace("\n", " ")
    marked = [item for item in Store(result.folder).measurements() if item.notes]
    assert len(marked) == 1 and "squares.py" in marked[0].notes[0]
    assert "Two versions of the task are on one front" in result.report().read_text()


def test_a_machine_that_is_never_quiet_ends_the_study_with_the_key_to_change(tmp_path: Path) -> None:
    for name in ("squares.py", "squares.toml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    study = tmp_path / "squares.toml"
    limits = study.read_text().replace("max_spread = 50.0", "max_spread = 1e-9\nretries = 0")
    study.write_text(limits.replace("count = 32", "count = 16"))
    said = edgedeploy_says("search", study, "--out", tmp_path / "out", "--board", "here")
    assert said.returncode == 4
    assert "no run was valid" in said.stderr and "max_spread in [measure]" in said.stderr
    front = json.loads(edgedeploy_says("front", tmp_path / "out", "--json").stdout)
    assert front["ended_early"].startswith("Unstable: ")
    assert {item["kind"] for item in front["failures"]} == {"Unstable"} and front["failures"][0]["tried_again"]
