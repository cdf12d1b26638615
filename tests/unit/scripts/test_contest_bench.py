"""`scripts/bench contest`: the volume is exact, the bars say what they hold, and our study file is one."""

from __future__ import annotations

import json
import random
import runpy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import made_up
import numpy as np
import pytest
from benchmarks.contest_kit.entries import FAILED, Entry, Recipe, made_s, make_all, tools_entries
from benchmarks.contest_kit.ours import STUDY, Searched, search, written
from benchmarks.contest_kit.outcome import Outcome, Scored, bars
from benchmarks.contest_kit.page import HELD, how_it_ran
from benchmarks.contest_kit.scoring import Score, Scores, mean_dice
from benchmarks.contest_kit.volume import Point, hypervolume, point_of
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedeploy.errors import SpecError
from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.spec.study import parse_spec
from edgedeploy.targets.registry import find_targets
from edgedeploy.tasks.segmentation.metrics import metric_table, segmentation_metrics

REPO = Path(__file__).resolve().parents[3]
TENTHS = st.integers(0, 10).map(lambda number: number / 10)
SPEC = TensorSpec("image", "float32", (1, 1, 8, 8))


def by_counting(points: list[Point]) -> float:
    """The volume of points on a grid of tenths: cells that some point's box covers."""
    cells = range(10)
    covered = sum(
        any(x < 10 * p[0] - 0.5 and y < 10 * p[1] - 0.5 and z < 10 * p[2] - 0.5 for p in points)
        for x in cells
        for y in cells
        for z in cells
    )
    return covered / 1000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TENTHS, TENTHS, TENTHS), max_size=8))
def test_the_volume_is_that_of_the_cells_that_the_boxes_cover(points: list[Point]) -> None:
    assert hypervolume(points) == pytest.approx(by_counting(points), abs=1e-12)


def test_order_and_dominated_points_do_not_change_the_volume() -> None:
    points = [(0.8, 0.5, 0.2), (0.5, 0.8, 0.6), (0.2, 0.2, 0.9), (0.5, 0.5, 0.5)]
    shuffled = random.Random(1).sample([*points, (0.4, 0.7, 0.6), points[0]], 6)
    assert hypervolume(shuffled) == pytest.approx(hypervolume(points))
    assert hypervolume([]) == 0


def test_objectives_are_cut_to_what_counts() -> None:
    assert point_of(0.50, 0.50, 0.2, 0.3) == pytest.approx((0.10 / 0.12, 0.8, 0.7))
    assert point_of(0.60, 0.50, 1.5, 0.3) == pytest.approx((1.0, 0.0, 0.7))
    assert point_of(0.39, 0.50, 0.2, 0.3)[0] == 0


def test_the_scored_dice_is_the_tasks_own() -> None:
    rng = np.random.default_rng(0)
    classes = {"nerve": 1, "vessel": 2}
    for there in ((0, 1, 2), (0, 1), (0,), (0, 2)):
        for drawn in ((0, 1, 2), (0, 2), (0,)):
            truth, answer = (rng.choice(values, (24, 20)).astype(np.uint8) for values in (there, drawn))
            asked = segmentation_metrics(answer, truth, classes)["dice_mean"]
            assert mean_dice(answer, truth, classes) == (asked if asked is None else pytest.approx(asked, abs=1e-6))


def artifact(name: str, size_bytes: int = 1000) -> Artifact:
    made = {"target": "onnxruntime", "precision": name, "entry": "model.onnx", "files": [], "inputs": [], "outputs": []}
    found = Artifact.from_json({**made, "settings": {}, "reference_sha256": "", "built_with": {}})
    return replace(found, inputs=(SPEC,))


def scored(name: str, side: str, dice: float, cpu: float, size_bytes: int) -> Scored:
    found = artifact(name)
    score = Score(
        key=found.digest,
        size_bytes=size_bytes,
        dice={"selection": dice, "confirmation": dice},
        cpu_ratio=cpu,
        cpu_quartiles=(cpu, cpu),
        latency_ratio=cpu,
        cpu_ms=1.0,
        executed={},
        cause=None,
        load=0.1,
        at="",
    )
    return Scored(Entry(side, name, "a tool", "", 1.0, found, Path()), score)  # type: ignore[arg-type]


BASE = scored("base", "tools", 0.6, 1.0, 4_000_000)
THEIRS = scored("theirs", "tools", 0.6, 0.6, 2_000_000)
GOOD = [scored("fast", "ours", 0.62, 0.1, 400_000), scored("other", "ours", 0.58, 0.05, 100_000)]
DONE = Searched(wall_s=2700, timed=60, proposals=60, duplicates=0, failures=Counter())


def verdicts(ours: list[Scored], did: Searched = DONE, *, vnni: bool = True) -> list[bool]:
    return [bar.holds for bar in bars(Outcome(BASE.score, [BASE, THEIRS, *ours], vnni), did)]


def test_a_side_that_is_good_enough_holds_every_bar() -> None:
    assert all(verdicts(GOOD)) and len(verdicts(GOOD)) == 8


def test_each_bar_is_missed_by_what_it_is_about() -> None:
    assert verdicts([])[:4] == [False] * 4  # no volume at all
    alone = bars(Outcome(BASE.score, [BASE, *GOOD], vnni=True), DONE)
    assert [bar.holds for bar in alone[:2]] == [False, True]  # there is nobody to be held against
    assert verdicts(GOOD, replace(DONE, timed=59)) == [True] * 6 + [False, True]
    assert verdicts(GOOD, replace(DONE, duplicates=1)) == [True] * 7 + [False]
    assert verdicts(GOOD, replace(DONE, proposals=0))[-1] is False
    slow = [scored("slow", "ours", 0.62, 0.25, 400_000)]
    assert verdicts(slow)[4] is False and verdicts(slow, vnni=False)[4] is True
    large = [scored("large", "ours", 0.62, 0.1, 450_001)]
    assert verdicts(large)[5] is False
    poor = [scored("poor", "ours", 0.589, 0.1, 400_000)]  # 0.011 below the float model
    assert verdicts(poor)[4:6] == [False, False]


def test_a_bar_that_nothing_can_hold_is_told_as_such() -> None:
    strong = scored("strong", "tools", 0.62, 0.2, 1_000_000)
    found = bars(Outcome(BASE.score, [BASE, strong, *GOOD], vnni=True), DONE)
    assert not found[0].holds and "1.67x is the most" in found[0].found
    assert "the most" not in bars(Outcome(BASE.score, [BASE, THEIRS, *GOOD], vnni=True), DONE)[0].found


@pytest.mark.parametrize(("cpu", "told"), [("AMD EPYC", False), (f"AMD EPYC {HELD}", True)])
def test_the_page_says_what_hid_a_part_of_the_processor(cpu: str, told: bool) -> None:
    outcome = Outcome(scored("float", "tools", 0.5, 1.0, 1000).score, [scored("one", "ours", 0.5, 0.2, 100)], False)
    text = " ".join(how_it_ran(outcome, replace(made_up.board(), cpu=cpu)))
    assert ("`scripts/held-to-avx2` hid it" in text) == told
    assert f"Machine: {cpu}, " in text


def test_the_page_knows_the_name_that_the_script_gives_a_held_processor() -> None:
    script = runpy.run_path(str(REPO / "scripts" / "held-to-avx2"), run_name="not run")
    told = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: avx2 avx512f\n"
    held = script["cpuinfo"](told)
    assert f"model name\t: AMD EPYC {HELD}\n" in held
    assert script["cpuinfo"](held) == held  # the script inside itself names it once


def test_chained_recipes_do_not_count_among_the_tools() -> None:
    chained = scored("chained", "chained", 0.62, 0.05, 100_000)
    outcome = Outcome(BASE.score, [BASE, THEIRS, chained], vnni=True)
    assert outcome.volume("selection", "tools") == Outcome(BASE.score, [BASE, THEIRS], vnni=True).volume(
        "selection", "tools"
    )
    assert outcome.volume("selection", "tools", "chained") > outcome.volume("selection", "tools")


def test_the_study_file_gets_data_and_minutes_and_is_a_study() -> None:
    text = written(STUDY.read_text(encoding="utf-8"), Path("/data/usgra-seg/dataset"), 3)
    spec, source = parse_spec(text, STUDY)
    spec.check(
        source,
        architecture={"resolution": (192, 160, 144), "upsampling": ("transposed", "resize")},
        task_metrics=metric_table({"nerve": 1, "vessel": 2}),
        known_targets={plugin.name: plugin.load().precisions for plugin in find_targets()},
    )
    assert spec.budget.wall_clock == 180
    assert spec.task.options["root"] == "/data/usgra-seg/dataset"
    assert spec.space["threads"] == (1,)
    with pytest.raises(SpecError, match="wall_clock"):
        written(text.replace("wall_clock", "#"), Path("/data"), 3)


def test_a_search_that_was_cut_off_begins_anew_and_one_that_ended_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[list[str]] = []
    statuses = iter([3, 4])

    def runner(command: list[str], **_: object) -> SimpleNamespace:
        runs.append(command)
        (tmp_path / "ours" / "run").mkdir()
        return SimpleNamespace(returncode=next(statuses))

    monkeypatch.setattr("benchmarks.contest_kit.ours.subprocess.run", runner)
    (tmp_path / "checkpoint.pt").write_bytes(b"weights")
    source = SimpleNamespace(folder=tmp_path, root=Path("/data"), checkpoint=tmp_path / "checkpoint.pt")
    with pytest.raises(SpecError, match="exit code 3"):
        search(source, STUDY, 3)  # type: ignore[arg-type]
    for _ in range(2):
        search(source, STUDY, 3)  # type: ignore[arg-type]
    assert len(runs) == 2 and "--resume" not in runs[1]
    assert len(list((tmp_path / "ours").glob("cut-off-*"))) == 1
    assert 'wall_clock = "3 min"' in (tmp_path / "ours" / "study.toml").read_text(encoding="utf-8")


def test_scores_are_read_back_and_the_later_one_counts(tmp_path: Path) -> None:
    first = scored("a", "ours", 0.6, 0.5, 10)
    scores = Scores(tmp_path)
    scores.keep(replace(first.score, cause="the load"))
    scores.keep(first.score)
    assert Scores(tmp_path).of(first.entry) == first.score
    assert Scores(tmp_path).of(BASE.entry) is None


NO_SOURCE = SimpleNamespace(reference=SimpleNamespace(inputs=(SPEC,), outputs=(SPEC,), sha256=""))
"""Stands for a source in recipes that ask nothing of it."""


def test_a_recipe_is_run_once_and_one_that_fails_is_told_as_such(tmp_path: Path) -> None:
    runs: list[str] = []

    def good(source: object, folder: Path) -> None:
        runs.append("good")
        (folder / "model.onnx").write_bytes(b"12345")

    def bad(source: object, folder: Path) -> None:
        runs.append("bad")
        raise RuntimeError("no such operator\nmore")

    recipes = [
        Recipe("good", "a tool", "onnxruntime", "float32", "model.onnx", "as it is", good),
        Recipe("bad", "a tool", "onnxruntime", "int8", "model.onnx", "as it is", bad),
    ]
    for _ in range(2):
        make_all(NO_SOURCE, recipes, tmp_path)  # type: ignore[arg-type]
    entries, missing = tools_entries(tmp_path)
    assert runs == ["good", "bad"]
    assert [(entry.name, entry.artifact.size_bytes) for entry in entries] == [("good", 5)]
    assert [(item.name, item.why) for item in missing] == [("bad", "RuntimeError: no such operator")]
    assert made_s(tmp_path) > 0
    assert FAILED not in json.loads((tmp_path / "good.json").read_text(encoding="utf-8"))
