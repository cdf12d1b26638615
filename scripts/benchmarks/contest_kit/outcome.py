"""What the scores say: volumes of the sides, the fastest and the smallest of ours, and the bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.contest_kit.entries import Entry, Side
from benchmarks.contest_kit.ours import MINUTES, Searched
from benchmarks.contest_kit.scoring import SPLITS, Score
from benchmarks.contest_kit.volume import Point, hypervolume, point_of
from benchmarks.shared.bars import Bar

VNNI: Final = ("avx512_vnni", "avx_vnni")
TIMES_THE_TOOLS: Final = 2.3
VOLUME_BARS: Final = {True: (0.70, 0.78), False: (0.63, 0.74)}
"""With and without VNNI: selection, confirmation."""
FASTEST_BAR: Final = {True: 0.20, False: 0.28}
FASTEST_LOSS: Final = 0.005
SMALLEST_BAR_BYTES: Final = 450_000
SMALLEST_LOSS: Final = 0.01
TIMED_BAR: Final = 60


@dataclass(frozen=True)
class Scored:
    entry: Entry
    score: Score


@dataclass(frozen=True)
class Outcome:
    """Everything scored, beside the score of ONNX Runtime float32 that all of it is held against."""

    baseline: Score
    scored: Sequence[Scored]
    vnni: bool

    def of(self, *sides: Side) -> list[Scored]:
        return [item for item in self.scored if item.entry.side in sides]

    def point(self, score: Score, split: str) -> Point:
        bytes_ratio = score.size_bytes / self.baseline.size_bytes
        return point_of(score.dice[split], self.baseline.dice[split], score.cpu_ratio, bytes_ratio)

    def volume(self, split: str, *sides: Side) -> float:
        return self.volume_of(self.of(*sides), split)

    def volume_of(self, items: Sequence[Scored], split: str) -> float:
        return hypervolume(self.point(item.score, split) for item in items)

    def best(
        self, loss: float, cost: Callable[[Score], float], *sides: Side, split: str = "selection"
    ) -> Scored | None:
        """The cheapest within ``loss`` Dice of the float model on the cases of ``split``."""
        close = [item for item in self.of(*sides) if item.score.dice[split] >= self.baseline.dice[split] - loss]
        return min(close, key=lambda item: cost(item.score), default=None)


def bars(outcome: Outcome, searched: Searched) -> list[Bar]:
    """The contest's bars. The fastest and the smallest are chosen on the selection cases; what the confirmation cases say of
    them stands beside them."""
    found = _volume_bars(outcome)
    word = "with VNNI" if outcome.vnni else "without VNNI"
    bar = FASTEST_BAR[outcome.vnni]
    fastest = outcome.best(FASTEST_LOSS, lambda score: score.cpu_ratio, "ours")
    found.append(
        Bar(
            f"fastest within {FASTEST_LOSS} Dice of float <= {bar:.2f}x CPU time ({word})",
            _told(outcome, fastest),
            fastest is not None and fastest.score.cpu_ratio <= bar,
        )
    )
    smallest = outcome.best(SMALLEST_LOSS, lambda score: score.size_bytes, "ours")
    found.append(
        Bar(
            f"smallest within {SMALLEST_LOSS} Dice of float <= {SMALLEST_BAR_BYTES / 1000:g} kB",
            _told(outcome, smallest),
            smallest is not None and smallest.score.size_bytes <= SMALLEST_BAR_BYTES,
        )
    )
    asked = f"variants with a measured time in {MINUTES:g} min >= {TIMED_BAR}"
    told = f"{searched.timed} in {searched.wall_s / 60:.1f} min" if searched.ended else "our search has not ended"
    found.append(Bar(asked, told, searched.timed >= TIMED_BAR))
    told = f"{searched.duplicates} of {searched.proposals}"
    found.append(Bar("0 duplicate proposals", told, searched.proposals > 0 and searched.duplicates == 0))
    return found


def _volume_bars(outcome: Outcome) -> list[Bar]:
    found = []
    word = "with VNNI" if outcome.vnni else "without VNNI"
    for split, least in zip(SPLITS, VOLUME_BARS[outcome.vnni], strict=True):
        ours, theirs = outcome.volume(split, "ours"), outcome.volume(split, "tools")
        told = f"{ours:.3f} against {theirs:.3f}: {ours / theirs:.2f}x" if theirs else f"{ours:.3f} against nothing"
        if theirs * TIMES_THE_TOOLS > 1:
            told += f" ({1 / theirs:.2f}x is the most that there can be: the largest volume is 1)"
        asked = f"hypervolume, {split}: >= {TIMES_THE_TOOLS}x of all tools together"
        found.append(Bar(asked, told, ours >= TIMES_THE_TOOLS * theirs > 0))
        found.append(Bar(f"hypervolume, {split}: >= {least:.2f} ({word})", f"{ours:.3f}", ours >= least))
    return found


def _told(outcome: Outcome, item: Scored | None) -> str:
    if item is None:
        return "none"
    losses = [f"{item.score.dice[split] - outcome.baseline.dice[split]:+.4f} on {split}" for split in SPLITS]
    return f"{item.score.cpu_ratio:.3f}x, {item.score.size_bytes / 1000:.0f} kB, {', '.join(losses)}: {item.entry.name}"
