"""How changed architectures are recovered, besides the rungs in the space."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pydantic import Field

from edgedeploy.records.elastic import NO_ELASTIC, Elastic
from edgedeploy.records.variant import BY_TIME, UNIFORM, Scalar
from edgedeploy.spec.scenarios import Table
from edgedeploy.spec.source import SpecSource

KEY = "recovery.elastic_epochs"


class RecoveryTable(Table):
    """How changed architectures are recovered."""

    elastic_epochs: int = Field(default=0, ge=0, le=100_000)
    """Epochs in which one network per architecture is trained at all depths, and at all widths by compute and by bytes, at
    once; their models are cut out of it instead of the baseline, and recovered from there. 0: none is."""
    from_wider: bool = True
    """A narrow model's training starts from the nearest wider model of its architecture that is trained by then, pruned
    further; else, and where there is none, from the pruned baseline."""


Space = Mapping[str, Sequence[Scalar]]


def check_elastic(source: SpecSource, space: Space, epochs: int, architecture: Collection[str]) -> None:
    """Refuse an elastic network that nothing would be cut out of. ``architecture`` names the task's own parameters."""
    if not epochs or _below_one(space, "depth", architecture):
        return
    if not _below_one(space, "width", ()):
        found = "the space has no width below 1, and no depth of blocks below 1"
        raise source.error(KEY, found, "Add some to space.width or space.depth, or remove it")
    if not _allocations(space):
        found = (
            "uniform widths choose their channels by their weights, which change while all widths are trained at once, "
            "and those by time wait for a measurement"
        )
        raise source.error(KEY, found, 'Add allocation = ["compute"] or ["bytes"] to the space, or remove it')


def elastic_of(space: Space, epochs: int, architecture: Collection[str]) -> Elastic:
    """The elastic network of a space that was checked."""
    if not epochs:
        return NO_ELASTIC
    widths, allocations = _below_one(space, "width", ()), _allocations(space)
    cut = (widths, allocations) if widths and allocations else ((), ())
    return Elastic(epochs, *cut, _below_one(space, "depth", architecture))


def _below_one(space: Space, key: str, owned: Collection[str]) -> tuple[float, ...]:
    """Shares below 1, the least first; none of a parameter that the task has itself."""
    shares = () if key in owned else space.get(key, ())
    return tuple(sorted({round(float(share), 6) for share in shares if float(share) < 1.0}))


def _allocations(space: Space) -> tuple[str, ...]:
    """Those that are known before anything is measured."""
    return tuple(sorted(str(name) for name in space.get("allocation", ()) if name not in (UNIFORM, BY_TIME)))
