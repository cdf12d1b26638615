"""All tools of the contest: those of this environment, and those that get one of their own."""

from __future__ import annotations

from benchmarks.contest_kit import by_others, by_pruning, by_tools
from benchmarks.contest_kit.checkpoint import Source
from benchmarks.contest_kit.entries import make_all


def make_tools(source: Source) -> None:
    """Every recipe, unless its outcome is there."""
    make_all(source, [*by_tools.recipes(), *by_pruning.recipes(), *by_others.recipes()], source.folder / "tools")
