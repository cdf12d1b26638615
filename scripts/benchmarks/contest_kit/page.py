"""The contest's page in the documentation: how it was run, the bars, the volumes, every artifact of the tools, our front."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from benchmarks.contest_kit.checkpoint import Source
from benchmarks.contest_kit.entries import Missing
from benchmarks.contest_kit.ours import Searched
from benchmarks.contest_kit.outcome import Outcome, Scored
from benchmarks.contest_kit.scoring import PLAN, SPLITS, Score
from benchmarks.contest_kit.volume import DICE_BELOW, DICE_SPAN
from benchmarks.shared.bars import Bar
from edgedeploy.records.board import BoardInfo
from edgedeploy.study.store import utc_now

WIDTH = 125
SHOWN_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
HELD = "(held to AVX2)"
HEAD = "| {} | Dice, selection | Dice, confirmation | CPU time | kB | |"


def page(
    source: Source,
    outcome: Outcome,
    missing: Sequence[Missing],
    tools_s: float,
    searched: Searched,
    bars: Sequence[Bar],
    board: BoardInfo,
) -> str:
    return "\n".join(
        (
            "# A contest on real ultrasound" + (" with AVX2 alone" if HELD in board.cpu else ""),
            "",
            *_how(source, outcome, tools_s, searched, board),
            "## Bars",
            "",
            "| asked | found | |",
            "|---|---|---|",
            *(f"| {bar.asked} | {bar.found} | {'holds' if bar.holds else '**missed**'} |" for bar in bars),
            "",
            "## Hypervolume",
            "",
            *_volumes(outcome),
            "",
            "## The tools' artifacts",
            "",
            *_table("recipe", outcome.of("tools", "chained"), outcome),
            *(f"| {item.name} | - | - | - | - | left nothing: {item.why} |" for item in missing),
            "",
            "## Ours that nothing of ours beats on the selection cases",
            "",
            *_table("variant", _front(outcome), outcome),
            "",
        )
    )


def _how(source: Source, outcome: Outcome, tools_s: float, searched: Searched, board: BoardInfo) -> Iterator[str]:
    paragraphs = (
        _run(outcome, board),
        _checkpoint(source, outcome.baseline),
        _scoring(tools_s, searched),
    )
    for paragraph in paragraphs:
        yield from textwrap.wrap(" ".join(paragraph), WIDTH, break_long_words=False)
        yield ""


def _run(outcome: Outcome, board: BoardInfo) -> Iterator[str]:
    loads = [item.score.load for item in outcome.scored]
    disturbed = sum(item.score.cause is not None for item in outcome.scored)
    flags = ", ".join(flag for flag in SHOWN_FLAGS if flag in board.isa)
    yield f"Made by `scripts/bench contest --write` on {utc_now()[:10]}; do not edit by hand."
    yield f"Machine: {board.cpu}, {board.cores} cores ({flags}), {board.os};"
    yield f"load {min(loads):.1f} to {max(loads):.1f} while scored."
    if HELD in board.cpu:
        yield "The processor has more than that: `scripts/held-to-avx2` hid it from the runtimes, which chose their"
        yield "kernels as on a processor without AVX-512 and VNNI."
        yield "The times are those of such kernels at this processor's own speed."
    if disturbed:
        yield f"{disturbed} of {len(loads)} artifacts ran while others used the machine; they are marked."


def _checkpoint(source: Source, base: Score) -> Iterator[str]:
    told, cases = source.told, source.told["cases"]
    yield f"The network has {told['parameters']:,} parameters (grey 192 x 192). It was trained from {cases['train']} images"
    yield f"in {told['wall_s'] / 60:.0f} minutes ({told['cpu_s'] / 60:.0f} of CPU time, {told['precision']};"
    yield f"load {told['load_before']:.1f} at first, {told['load_after']:.1f} at last)."
    yield f"Its Dice (mean of nerve and vessel) is {base.dice['selection']:.3f} on {cases['selection']} selection cases and"
    yield f"{base.dice['confirmation']:.3f} on {cases['confirmation']} confirmation cases; it takes {base.cpu_ms:.1f} ms and"
    yield f"{base.size_bytes / 1000:.0f} kB as ONNX Runtime float32. {cases['calibration']} images calibrate."


def _scoring(tools_s: float, searched: Searched) -> Iterator[str]:
    yield f"Every artifact runs in a process with one thread on one core, {PLAN.queries} queries in blocks interleaved with"
    yield "ONNX Runtime float32; CPU time is the median of the block pairs' ratios. The tools took"
    searching = f"our search {searched.wall_s / 60:.0f}" if searched.ended else "our search has not ended"
    yield f"{tools_s / 60:.0f} minutes in all, {searching}. All artifacts of a side count, each by"
    yield f"three objectives: (Dice - (float - {DICE_BELOW:g})) / {DICE_SPAN:g}, 1 - CPU time, 1 - bytes, each cut to 0..1,"
    yield "the last two over ONNX Runtime float32. Our search chose by the selection cases, and so did NNCF's accuracy"
    yield "control; nothing saw the confirmation cases before they were scored."
    if searched.failures:
        yield f"Of ours failed: {', '.join(f'{count} {kind}' for kind, count in sorted(searched.failures.items()))}."


def _volumes(outcome: Outcome) -> Iterator[str]:
    yield "| artifacts | number | selection | confirmation |"
    yield "|---|---|---|---|"
    tools = sorted({item.entry.tool for item in outcome.of("tools")})
    rows = [(f"{tool} alone", [item for item in outcome.of("tools") if item.entry.tool == tool]) for tool in tools]
    rows += [
        ("all tools together", outcome.of("tools")),
        ("all tools, and torch-pruning chained with the others by hand", outcome.of("tools", "chained")),
        ("ours", outcome.of("ours")),
    ]
    for name, items in rows:
        volumes = [outcome.volume_of(items, split) for split in SPLITS]
        yield f"| {name} | {len(items)} | {volumes[0]:.3f} | {volumes[1]:.3f} |"


def _table(title: str, items: Sequence[Scored], outcome: Outcome) -> Iterator[str]:
    yield HEAD.format(title)
    yield "|---|---|---|---|---|---|"
    for item in items:
        yield f"| {item.entry.name} | {_cells(item.score, outcome.baseline)} | {_remark(item)} |"


def _cells(score: Score, base: Score) -> str:
    dice = [f"{score.dice[split]:.3f} ({score.dice[split] - base.dice[split]:+.3f})" for split in SPLITS]
    return " | ".join([*dice, f"{score.cpu_ratio:.3f}x", f"{score.size_bytes / 1000:.0f}"])


def _remark(item: Scored) -> str:
    told = [item.entry.how] if item.entry.how else []
    return "; ".join([*told, *(["disturbed"] if item.score.cause else [])])


def _front(outcome: Outcome) -> list[Scored]:
    """Ours that no other of ours equals or betters in all three objectives, on the selection cases; the fastest first."""
    ours = outcome.of("ours")
    points = {id(item): outcome.point(item.score, SPLITS[0]) for item in ours}

    def beaten(item: Scored) -> bool:
        own = points[id(item)]
        others = (points[id(other)] for other in ours if other is not item)
        return min(own) <= 0 or any(all(a >= b for a, b in zip(other, own, strict=True)) for other in others)

    return sorted((item for item in ours if not beaten(item)), key=lambda item: item.score.cpu_ratio)
