"""Trains the next variant's model on this host while the boards measure, where no board is this host."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Final

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.task import can_recover
from edgedeploy.records.variant import DEPLOYMENT_KEYS, Variant
from edgedeploy.study.preflight import Ready
from edgedeploy.study.workbench import Workbench

TRAINED: Final = frozenset({"width", "training"})
"""Parameters whose values are trained for, besides those of the architecture."""


def ahead_of(ready: Ready, bench: Workbench, host: AbstractContextManager[object]) -> Callable[[Variant], None] | None:
    """Makes a variant's model, while ``host`` is locked; None where no models are trained. A board that is away may turn out
    to be this host, where a training would be timed with whatever is measured: then nothing is trained ahead either."""
    trains = any(
        len(values) > 1 and (name in TRAINED or name not in DEPLOYMENT_KEYS)
        for name, values in ready.space.parameters.items()
    )
    if ready.away or not trains or not can_recover(ready.task):
        return None

    def prepare(variant: Variant) -> None:
        with host, suppress(Unsupported):  # what has no room on the board is told when its turn comes
            bench.fits.require(variant)
            bench.reference(variant)

    return prepare
