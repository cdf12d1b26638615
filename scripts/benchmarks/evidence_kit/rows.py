"""What a row of the table is, and where rows are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """What the command line asks of every row: how often a simulation is repeated, and the seed of all of them."""

    repeats: int = 4000
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """What was asked, what was found (with its error), the bar in words, and whether it holds; no bar always holds."""

    what: str
    found: str
    bar: str = ""
    holds: bool = True


Maker = Callable[[Asked], Row]


def makers() -> dict[str, Maker]:
    """Every function of every module's ``ROWS`` by its name, in the order of the modules' names."""
    here = Path(__file__).parent
    names = sorted(path.stem for path in here.glob("*.py") if path.stem not in ("__init__", "rows"))
    found = [maker for name in names for maker in import_module(f"benchmarks.evidence_kit.{name}").ROWS]
    return {maker.__name__: maker for maker in found}
