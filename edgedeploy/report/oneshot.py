"""One measurement of one model as plain data for a terminal."""

from __future__ import annotations

from typing import Final

from edgedeploy.evidence.quantities import heading, quantity, span
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.report.terminal import TextTable
from edgedeploy.report.words import executed_text
from edgedeploy.study.oneshot.measure import MEDIAN, Measured

_OR_ALLOW: Final = ", or add `--study FILE`: the limits in the [measure] table of that study file count then"
FIRST: Final = (MEDIAN, "latency_p90_ns", "latency_p99_ns", "latency_ratio")


def measured_table(found: Measured) -> TextTable:
    """The metrics with their intervals, then those that are missing with their reasons, and sentences below."""
    run = found.measurement
    names = sorted(found.estimates, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    rows = [
        (
            heading(name),
            quantity(item.value, name, BOARD_METRICS[name].unit),
            span(item, name, BOARD_METRICS[name].unit),
        )
        for name in names
        for item in [found.estimates[name]]
    ]
    # No board with a clock of its own counts instructions: that goes without saying.
    silent = [name for name, row in BOARD_METRICS.items() if run.board.clock == "wall" and "wall" in row.not_by_clock]
    known = BOARD_METRICS.keys() - set(silent)
    rows += [(heading(name), "-", reason) for name, reason in sorted(run.missing.items()) if name in known]
    processor = f"{run.board.cpu}, {run.board.cores} cores"
    how = run.provenance if run.valid else f"{run.provenance} in an INVALID run"
    return TextTable(
        title=f"{found.what}: {run.variant.target} {run.variant.precision} on {run.board.name}, {how}",
        headers=("metric", "value", "95 % interval, or why there is no number"),
        rows=tuple(rows),
        notes=(*_sentences(found), f"Board: {processor}; {run.variant.threads} threads; inputs: {found.inputs}."),
    )


def _sentences(found: Measured) -> list[str]:
    run = found.measurement
    lines = [] if run.valid else [f"INVALID: {run.cause}. Run it again when the board is idle{_OR_ALLOW}."]
    lines += [f"Layers by the precision that ran: {executed_text(run.candidate.executed)}."]
    if found.baseline is not None:
        median = quantity(found.baseline.value, MEDIAN, "ns")
        verdict = f"; {found.verdict.text}" if found.verdict and run.valid else ""  # an invalid run shows nothing
        lines.append(f"The float model, interleaved in the same session: {median} in the median{verdict}.")
    if run.parity:
        lines.append(f"Distance from the float model: {run.parity['rel_l2']:.3g} (relative L2, worst output).")
    if run.weight_bits is not None:
        lines.append(f"int8 weights of {run.weight_bits.text}.")
    return [*lines, *(f"{note[:1].upper()}{note[1:]}." for note in found.notes)]
