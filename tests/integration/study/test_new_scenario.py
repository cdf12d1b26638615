"""A new scenario costs the files that docs/extend/scenario.md promises: its code is added to a copy of the package, and a
study that asks for it is searched with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from board_kit import STUDY_LIMIT_S
from extending_kit import REPO, Tree, promised

EXAMPLES = REPO / "docs" / "examples"
PAGE = REPO / "docs" / "extend" / "scenario.md"
METRIC = "after_pause_p90_ns"


@pytest.mark.beside
@pytest.mark.timeout(STUDY_LIMIT_S)
def test_a_scenario_is_added_by_as_many_files_as_promised(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "tree")
    tree.follow(PAGE.read_text(encoding="utf-8"))
    assert len(tree.changed()) == promised("scenario")
    page = "tests/unit/spec/test_keys.py::test_the_page_of_all_keys_is_the_one_that_the_models_give"  # made by a script
    rooms = ("tests/unit/runtime/test_scenarios.py", "tests/unit/spec", "tests/unit/records/test_metric_table.py")
    tree.passes(*rooms, f"--deselect={page}")

    shutil.copy(EXAMPLES / "squares.py", tmp_path)
    text = (EXAMPLES / "squares.toml").read_text(encoding="utf-8")
    goal = f'[[constraints]]\nmetric = "{METRIC}"\nat_most = "60 s"\n\n[budget]'
    asked = '[measure]\nscenarios = ["after_pause"]\nafter_pause = { pause = "1 ms" }'
    study = tmp_path / "study.toml"
    study.write_text(text.replace("[budget]", goal).replace("[measure]", asked), encoding="utf-8")

    def edgedeploy(*arguments: str) -> str:
        done = tree.run("-m", "edgedeploy", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    edgedeploy("search", "study.toml", "--out", "out", "--board", "here", "--trials", "2", "--no-confirm")
    front = json.loads(edgedeploy("front", "out", "--json"))
    assert front["rows"]
    assert all(row["estimates"][METRIC]["value"] > 0 for row in front["rows"])
    edgedeploy("report", "out")
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "After a pause: caches and clocks have gone cold" in report
    assert ">p90 after a pause<" in report
