"""The bars of a finished demo study, read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.shared.bars import Bar, common_bars, judge
from edgedeploy.evidence.front import Front
from edgedeploy.study.store import Store

EXTRAS: Final = ("study",)


def bars(store: Store, front: Front) -> list[Bar]:
    reference = store.measurement(front.reference or "")
    dice = reference.metrics["dice_mean"] if reference else float("nan")
    return [
        *common_bars(store, front, 20),
        Bar("a front of at least 3 points", str(len(front.members)), len(front.members) >= 3),
        Bar("float Dice about 0.75 to 0.9", f"{dice:.3f}", 0.75 <= dice <= 0.9),
    ]


def main(argv: Sequence[str]) -> int:
    return judge("demo", __doc__, bars, argv)
