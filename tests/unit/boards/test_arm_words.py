"""Emulated Arm boards in a study file, and what becomes of a metric that such a board cannot give."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from pathlib import Path

import made_up
import pytest

from edgedeploy.boards.arm.board import EmulatedArmBoard
from edgedeploy.boards.arm.image import RUNTIMES, image_of, require_image, requirements
from edgedeploy.boards.emulated.emulator import plan_for
from edgedeploy.boards.open import open_board
from edgedeploy.errors import SpecError, TargetUnavailable
from edgedeploy.evidence.metrics import board_metrics
from edgedeploy.records.job import MeasurePlan
from edgedeploy.records.metric_table import RUN_METRICS
from edgedeploy.records.metrics import Clock
from edgedeploy.spec.study import StudySpec, parse_spec

STUDY = """\
[study]
name = "demo"
targets = ["onnxruntime"]

[task]
kind = "synthetic-ultrasound"

[[boards]]
name = "arm"
{board}

[space]
width = [1.0, 0.5]

[[objectives]]
metric = "{metric}"

[budget]
trials = 2
"""
ARTIFACT = made_up.artifact(made_up.variant())


def parse(board: str, metric: str = "size_bytes") -> StudySpec:
    return parse_spec(STUDY.format(board=board, metric=metric), Path("study.toml"))[0]


@pytest.mark.parametrize("machine", ["arm64", "arm64-system"])
def test_one_word_names_the_machine(machine: str) -> None:
    word, long = parse(f'kind = "emulated:{machine}"'), parse(f'kind = "emulated"\nmachine = "{machine}"')
    assert word.boards == long.boards
    assert word.boards[0].machine == machine
    assert word.board(f"emulated:{machine}").machine == machine  # for --board, without a table
    board = open_board(word.boards[0].model_dump())
    assert isinstance(board, EmulatedArmBoard)
    assert (board.name, board.provenance) == ("arm", "emulated")


@pytest.mark.parametrize("machine", ["arm64", "arm64-system"])
def test_a_study_with_one_board_names_it_by_one_word(machine: str) -> None:
    table = '[[boards]]\nname = "arm"\n{board}\n'
    text = STUDY.replace(table, "").format(metric="size_bytes")
    board = f'board = "emulated:{machine}"\n'
    (found,) = parse_spec(board + text, Path("study.toml"))[0].boards
    assert (found.name, found.kind, found.machine) == (f"emulated:{machine}", "emulated", machine)
    (found,) = parse_spec(text + '\n[board]\nname = "here"\nkind = "local"\n', Path("study.toml"))[0].boards
    assert found.name == "here"
    with pytest.raises(SpecError, match="keep one of them"):
        parse_spec(board + STUDY.format(board='kind = "local"', metric="size_bytes"), Path("study.toml"))
    with pytest.raises(SpecError, match="machine"):
        parse_spec(board.replace(machine, "arm32") + text, Path("study.toml"))


@pytest.mark.parametrize(
    ("board", "said"),
    [
        ('kind = "emulated:arm32"', "machine"),
        ('kind = "local"\nmachine = "arm64"', "`machine` goes with"),
        ('kind = "emulated:arm64"\nmachine = "arm64"', "kind"),
    ],
)
def test_a_wrong_machine_is_one_line(board: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse(board)


def test_a_board_word_that_nobody_knows_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="Did you mean 'emulated:arm64'"):
        parse('kind = "emulated:arm64"').board("emulated:arm6")


@pytest.mark.parametrize(
    ("metric", "clock", "refused"),
    [
        ("latency_p50_ns", "none", True),
        ("latency_ratio", "virtual", True),
        ("peak_memory_bytes", "none", True),
        ("peak_memory_bytes", "virtual", False),
        ("virtual_ns", "virtual", False),
        ("virtual_ns", "none", True),
        ("virtual_ns", "wall", True),
        ("latency_p50_ns", "wall", False),
        ("size_bytes", "none", False),
    ],
)
def test_a_goal_that_the_board_cannot_have_is_refused_before_anything_starts(
    metric: str, clock: Clock, refused: bool
) -> None:
    spec, source = parse_spec(STUDY.format(board='kind = "local"', metric=metric), Path("study.toml"))
    if refused:
        with pytest.raises(SpecError, match=f"no {metric}"):
            spec.check_clock(source, "arm", clock)
    else:
        spec.check_clock(source, "arm", clock)


@pytest.mark.parametrize("clock", ["none", "virtual", "wall"])
def test_a_board_without_a_time_of_its_own_spreads_no_width_by_time(clock: Clock) -> None:
    text = STUDY.format(board='kind = "local"', metric="size_bytes")
    assert text.count("[space]\n") == 1
    spaced = text.replace("[space]\n", '[space]\nallocation = ["uniform", "time"]\n')
    spec, source = parse_spec(spaced, Path("study.toml"))
    if clock == "wall":
        spec.check_clock(source, "arm", clock)
    else:
        with pytest.raises(SpecError, match=r"space\.allocation: board 'arm' has no time of its own"):
            spec.check_clock(source, "arm", clock)


def test_an_emulators_pace_becomes_no_number() -> None:
    side = made_up.side(3.0)
    metrics, missing = board_metrics(side, None, ARTIFACT, clock="none")
    assert set(metrics) == {"size_bytes", "shipped_bytes"}
    assert set(missing) == set(RUN_METRICS) - {"size_bytes", "shipped_bytes"}
    times = {name for name, row in RUN_METRICS.items() if row.unit == "ns"} | {"latency_ratio", "cpu_time_ratio"}
    assert all("no board's" in missing[name] for name in times)


def test_a_counting_clock_gives_virtual_time_under_no_other_name() -> None:
    side = dataclasses.replace(made_up.side(3.0), blocks_ns=((9, 9), (9, 9), (9, 9)), cpu_ns=(208, 200, 264))
    metrics, missing = board_metrics(side, None, ARTIFACT, clock="virtual")
    assert set(metrics) == {"virtual_ns", "peak_memory_bytes", "size_bytes", "shipped_bytes"}
    assert metrics["virtual_ns"] == 100  # an interrupt only adds
    assert set(metrics) | set(missing) == set(RUN_METRICS)
    assert not set(metrics) & set(missing)


def test_an_untimed_run_on_a_counting_clock_has_no_virtual_time() -> None:
    side = dataclasses.replace(made_up.side(3.0), blocks_ns=(), cpu_ns=())
    metrics, missing = board_metrics(side, None, ARTIFACT, clock="virtual")
    assert "virtual_ns" not in metrics
    assert missing["virtual_ns"] == "no timed queries were asked for"


def test_nothing_is_timed_where_no_time_counts() -> None:
    plan = MeasurePlan(queries=662, cold_starts=3)
    assert plan_for(plan, "none") == dataclasses.replace(plan, queries=0, cold_starts=0)
    few = plan_for(plan, "virtual")
    assert 0 < few.queries < 64
    assert few.cold_starts == 0
    assert plan_for(dataclasses.replace(plan, queries=0), "virtual").queries == 0


def test_the_board_gets_the_versions_of_this_host() -> None:
    def version(name: str) -> str:
        if name == "openvino":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3"

    found = requirements(version)
    assert [item.partition("=")[0] for item in found[1:]] == list(RUNTIMES)
    assert "onnxruntime==1.2.3" in found
    assert "openvino" in found


def test_an_image_that_is_not_built_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedeploy.boards.emulated.hosting.find_program", lambda name: f"/usr/bin/{name}")
    assert image_of("arm64", tmp_path) == image_of("arm64", tmp_path)
    assert image_of("arm64", tmp_path).key != image_of("arm64-system", tmp_path).key
    with pytest.raises(TargetUnavailable, match="edgedeploy boards create arm64-system"):
        require_image("arm64-system", tmp_path)


def test_a_program_that_is_missing_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgedeploy.boards.emulated.hosting.find_program", lambda name: None)
    with pytest.raises(TargetUnavailable, match="apt-get install qemu-user-static"):
        require_image("arm64", tmp_path)
