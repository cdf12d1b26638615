"""Further runs of a measured artifact, in new processes, as one measurement with the run before.

What is compared stays beside what it was measured beside: each run has its own baseline between its own blocks. Ratios are
of neighbours in one run, so the runs are put one behind the other in whole ABBA rounds; no pair and no round spans two of
them. Runs are of one artifact on one board with one runtime. Where the baseline, which does the same work in both, became
faster or slower between them by more than a run may drift, they are not put together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from edgedeploy.errors import Unstable
from edgedeploy.evidence.metrics import board_metrics
from edgedeploy.evidence.statistics import StabilityLimits, block_medians, pair_ratios, stability
from edgedeploy.evidence.verdict import MARGIN
from edgedeploy.records.job import RawSide
from edgedeploy.records.measurement import Measurement

RUNS: Final = "runs"
"""Where ``environment`` has the runs of such a measurement: of each the blocks of a side, its time, and its environment."""

RUNS_DIFFER: Final = "its runs differ: "
"""How the note begins of a measurement whose runs are further apart than processes of one artifact are expected to be."""

BLOCKS_OF_A_ROUND: Final = 2
"""Blocks of one side in an ABBA round."""


def run_count(item: Measurement) -> int:
    return len(item.environment.get(RUNS, ())) or 1


def with_rerun(item: Measurement, later: Measurement, limits: StabilityLimits) -> Measurement:
    """``item`` with the times of a ``later`` run added. The task's metrics, scenarios, layers and the time of creation stay
    those of the first run: the artifact is the same.

    Raises ``Unstable`` where the two do not belong together: another artifact, board, runtime or baseline, a run that is
    invalid, or a baseline that became faster or slower between them.
    """
    why = _apart(item, later)
    if why:
        raise Unstable(f"add a run of {item.variant.label}", why, "The first run counts alone")
    assert item.baseline is not None and later.baseline is not None
    rounds = [_whole_rounds(one.candidate, one.baseline) for one in (item, later) if one.baseline is not None]
    candidate = _behind(item.candidate, later.candidate, rounds)
    baseline = _behind(item.baseline, later.baseline, rounds)
    moved = stability(baseline, {}, limits)
    if moved:
        found = f"put together, {moved}"
        raise Unstable(f"add a run of {item.variant.label}", found, "The first run counts alone")
    metrics, missing = board_metrics(
        candidate, baseline, item.artifact, item.environment.get("energy"), item.board.clock, item.images
    )
    others = {name: value for name, value in item.metrics.items() if name not in missing}
    reasons = {name: value for name, value in item.missing.items() if name not in metrics}
    runs = [*(item.environment.get(RUNS) or [_run(item, rounds[0])]), _run(later, rounds[1])]
    notes = [note for note in item.notes if not note.startswith(RUNS_DIFFER)]
    return replace(
        item,
        notes=(*notes, *_differing(candidate, baseline, [run["blocks"] for run in runs])),
        candidate=candidate,
        baseline=baseline,
        environment={**item.environment, RUNS: runs},
        metrics={**others, **metrics},
        missing={**reasons, **missing},
    )


def _apart(item: Measurement, later: Measurement) -> str:
    """Why two measurements are not runs of the same thing; empty when they are."""
    if not (item.valid and later.valid):
        return f"a run is invalid: {later.cause or item.cause}"
    if item.baseline is None or later.baseline is None:
        return "a run has no baseline beside it"
    facts = {
        "variant": (item.digest, later.digest),
        "artifact": (item.artifact.digest, later.artifact.digest),
        "board": ((item.board.name, item.board.identity), (later.board.name, later.board.identity)),
        "baseline": (item.baseline_variant, later.baseline_variant),
        "runtime": (item.candidate.runtime_version, later.candidate.runtime_version),
        "device": (item.candidate.device, later.candidate.device),
        "executed precision": (dict(item.candidate.executed), dict(later.candidate.executed)),
    }
    return next(
        (f"they have another {name} each: {one} and {other}" for name, (one, other) in facts.items() if one != other),
        "",
    )


def _differing(candidate: RawSide, baseline: RawSide, blocks: Sequence[int]) -> tuple[str, ...]:
    """That the runs' own ratios lie further apart than two processes of one artifact are expected to: their blocks are drawn
    as if they were of one process."""
    ratios = pair_ratios(block_medians(candidate), block_medians(baseline))
    ends = np.cumsum(blocks)
    medians = [float(np.median(ratios[end - count : end])) for end, count in zip(ends, blocks, strict=True)]
    if max(medians) <= min(medians) * (1 + MARGIN):
        return ()
    return (f"{RUNS_DIFFER}latency_ratio {', '.join(f'{median:.3f}' for median in medians)}",)


def _whole_rounds(ours: RawSide, theirs: RawSide) -> int:
    """Blocks of each side that make whole rounds."""
    return min(len(ours.blocks_ns), len(theirs.blocks_ns)) // BLOCKS_OF_A_ROUND * BLOCKS_OF_A_ROUND


def _behind(first: RawSide, second: RawSide, blocks: list[int]) -> RawSide:
    one, two = blocks
    return replace(
        first,
        blocks_ns=(*first.blocks_ns[:one], *second.blocks_ns[:two]),
        cpu_ns=(*first.cpu_ns[:one], *second.cpu_ns[:two]) if first.cpu_ns and second.cpu_ns else (),
        cold_starts_ns=(*first.cold_starts_ns, *second.cold_starts_ns),
        peak_memory_bytes=max(first.peak_memory_bytes, second.peak_memory_bytes),
        memory_note=first.memory_note or second.memory_note,
    )


def _run(item: Measurement, blocks: int) -> dict[str, Any]:
    environment: Mapping[str, Any] = {name: value for name, value in item.environment.items() if name != RUNS}
    return {"created_utc": item.created_utc, "blocks": blocks, "environment": dict(environment)}
