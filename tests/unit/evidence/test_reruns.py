"""Further runs of one artifact, put together with the run before."""

from __future__ import annotations

from dataclasses import replace

import made_up
import pytest

from edgedeploy.errors import Unstable
from edgedeploy.evidence.reruns import run_count, with_rerun
from edgedeploy.evidence.statistics import block_medians, pair_ratios
from edgedeploy.records.artifact import ArtifactFile
from edgedeploy.records.measurement import Measurement

VARIANT = made_up.variant(width=0.5)
OTHER_FILE = replace(made_up.artifact(VARIANT), files=(ArtifactFile("model.onnx", "cd" * 32, 1_200_000),))


def run(seed: int, latency_ms: float = 3.0, baseline_ms: float = 6.0, **more: object) -> Measurement:
    found = made_up.measurement(VARIANT, latency_ms=latency_ms, baseline_ms=baseline_ms, seed=seed, **more)  # type: ignore[arg-type]
    return replace(found, created_utc=f"2026-01-0{seed}")


def ratios(item: Measurement) -> list[float]:
    assert item.baseline is not None
    return pair_ratios(block_medians(item.candidate), block_medians(item.baseline)).tolist()


def test_every_pair_is_of_one_run() -> None:
    """A machine that is 2 % slower in the second run: ratios across runs would be off by as much."""
    first, second = run(1), run(2, 3.06, 6.12)
    both = with_rerun(first, second, made_up.LIMITS)
    assert ratios(both) == [*ratios(first), *ratios(second)]
    assert both.metrics["latency_ratio"] == pytest.approx(0.5, abs=0.005)
    assert (run_count(first), run_count(both)) == (1, 2)
    assert (both.created_utc, both.cases) == (first.created_utc, first.cases)
    runs = both.environment["runs"]
    assert [(one["created_utc"], one["blocks"]) for one in runs] == [("2026-01-01", 84), ("2026-01-02", 84)]
    assert Measurement.from_json(both.as_json()) == both
    assert run_count(with_rerun(both, run(3), made_up.LIMITS)) == 3


def test_a_run_that_ended_within_a_round_gives_its_whole_rounds() -> None:
    first = run(1)
    assert first.baseline is not None
    shorter = replace(first, baseline=replace(first.baseline, blocks_ns=first.baseline.blocks_ns[:83]))
    both = with_rerun(shorter, run(2), made_up.LIMITS)
    assert ratios(both) == [*ratios(first)[:82], *ratios(run(2))]
    assert len(both.candidate.cpu_ns) == len(both.candidate.blocks_ns) == 82 + 84


def test_the_largest_peak_counts_and_every_cold_start() -> None:
    first, second = run(1), run(2)
    more = replace(second.candidate, peak_memory_bytes=150_000_000)
    both = with_rerun(first, replace(second, candidate=more), made_up.LIMITS)
    assert both.metrics["peak_memory_bytes"] == 150_000_000
    assert len(both.candidate.cold_starts_ns) == 6


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"board": made_up.board(identity="1" * 16)}, "another board"),
        ({"artifact": OTHER_FILE}, "another artifact"),
        ({"baseline_variant": "0" * 16}, "another baseline"),
        ({"variant": made_up.variant(width=0.75)}, "another variant"),
        ({"valid": False, "cause": "it was hot"}, "it was hot"),
        ({"baseline": None}, "no baseline"),
    ],
)
def test_what_does_not_belong_together_stays_apart(changes: dict[str, object], found: str) -> None:
    with pytest.raises(Unstable, match=found):
        with_rerun(run(1), replace(run(2), **changes), made_up.LIMITS)  # type: ignore[arg-type]


def test_a_baseline_that_became_slower_between_the_runs_is_another_number() -> None:
    with pytest.raises(Unstable, match=r"the baseline became .* slower"):
        with_rerun(run(1), run(2, 4.5, 9.0), made_up.LIMITS)


def test_runs_that_are_further_apart_than_processes_are_say_so() -> None:
    near = with_rerun(run(1, noise=0.002), run(2, noise=0.002), made_up.LIMITS)
    assert near.notes == run(1, noise=0.002).notes
    far = with_rerun(near, run(3, 3.3, noise=0.002), made_up.LIMITS)
    (note,) = [note for note in far.notes if note not in near.notes]
    assert note.startswith("its runs differ: latency_ratio 0.5") and note.count(", ") == 2
    assert with_rerun(far, run(4, noise=0.002), made_up.LIMITS).notes[-1].count(", ") == 3, "one note for all of them"


def test_another_runtime_stays_apart() -> None:
    later = run(2)
    with pytest.raises(Unstable, match="another runtime"):
        with_rerun(run(1), replace(later, candidate=replace(later.candidate, runtime_version="1.33.0")), made_up.LIMITS)
