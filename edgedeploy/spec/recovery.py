"""How changed architectures are recovered, besides the rungs in the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from edgedeploy.records.elastic import NO_ELASTIC, Elastic
from edgedeploy.records.variant import BY_TIME, UNIFORM, Scalar
from edgedeploy.spec.scenarios import Table
from edgedeploy.spec.source import SpecSource

KEY = "recovery.elastic_epochs"


class RecoveryTable(Table):
    """How changed architectures are recovered."""

    elastic_epochs: int = Field(default=0, ge=0, le=100_000)
    """Epochs in which one network per architecture is trained at all widths by compute and by bytes at once; their models
    are cut out of it instead of the baseline, and recovered from there. 0: none is."""
    from_wider: bool = True
    """A narrow model's training starts from the nearest wider model of its architecture that is trained by then, pruned
    further; else, and where there is none, from the pruned baseline."""


def check_elastic(source: SpecSource, space: Mapping[str, Sequence[Scalar]], epochs: int) -> None:
    """Refuse an elastic network that nothing would be cut out of."""
    if not epochs:
        return
    if not any(float(width) < 1.0 for width in space.get("width", ())):
        raise source.error(KEY, "the space has no width below 1", "Add some to space.width, or remove it")
    if not _allocations(space):
        found = (
            "uniform widths choose their channels by their weights, which change while all widths are trained at once, "
            "and those by time wait for a measurement"
        )
        raise source.error(KEY, found, 'Add allocation = ["compute"] or ["bytes"] to the space, or remove it')


def elastic_of(space: Mapping[str, Sequence[Scalar]], epochs: int) -> Elastic:
    """The elastic network of a space that was checked."""
    if not epochs:
        return NO_ELASTIC
    widths = sorted({round(float(width), 6) for width in space["width"] if float(width) < 1.0})
    return Elastic(epochs, tuple(widths), _allocations(space))


def _allocations(space: Mapping[str, Sequence[Scalar]]) -> tuple[str, ...]:
    """Those that are known before anything is measured."""
    return tuple(sorted(str(name) for name in space.get("allocation", ()) if name not in (UNIFORM, BY_TIME)))
