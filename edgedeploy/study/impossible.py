"""Goals that cannot be met, found before anything is trained: ``impossible.json``, with the bound as the proof.

Certain are the best values that a metric can have, and how many bytes the weights of the narrowest network take at least: a
file holds every weight of a convolution or linear layer once, and a process that computes it reads all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from edgedeploy.compress.sizes import least_weights
from edgedeploy.evidence.proofs import Proof
from edgedeploy.files import write_json
from edgedeploy.interfaces.task import ReadyMade, Task
from edgedeploy.records.goals import Constraint
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.precision import AS_GIVEN
from edgedeploy.records.variant import UNIFORM, Scalar
from edgedeploy.spec.goals import constraints_of
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.fits import AT_MOST, IN_OWN_MEMORY, LEAST_BITS, LEAST_FLOAT_BITS
from edgedeploy.study.layout import IMPOSSIBLE
from edgedeploy.study.reading import read_record
from edgedeploy.study.shrinking import leaves_out
from edgedeploy.study.store import Store

if TYPE_CHECKING:
    from edgedeploy.search.space import Space  # which needs Optuna, and readers of a folder do not

MOST_ARCHITECTURES: Final = 64
"""Architectures of which the narrowest is looked for, at most: with more there is no proof."""

_FEWEST: Final = 0.02
"""Share of its weights that a network keeps with a few channels in each layer, at least."""

REMEDY: Final = "Remove it: the next run writes it anew"


def proofs(spec: StudySpec, task: Task, space: Space, metrics: Mapping[str, MetricInfo]) -> tuple[Proof, ...]:
    """One for each constraint that no variant of the space can meet; empty where nothing is certain."""
    found = []
    for constraint in constraints_of(spec, metrics):
        info = metrics[constraint.metric]
        proof = _by_best(constraint, info) or _by_weights(constraint, info, task, space)
        if proof is not None:
            found.append(proof)
    return tuple(found)


def _by_best(constraint: Constraint, info: MetricInfo) -> Proof | None:
    """The best value that the metric can have at all."""
    best, of_board = info.best, constraint.metric in BOARD_METRICS
    why = "no time, size or share is negative" if of_board else "that is the best value that there can be"
    sided = (constraint.at_most is not None) == (info.direction == "minimize")
    if best is None or not sided or constraint.violation(best) <= 0:
        return None
    return Proof(constraint, info.unit, best, why)


def _by_weights(constraint: Constraint, info: MetricInfo, task: Task, space: Space) -> Proof | None:
    memory = constraint.metric == "peak_memory_bytes" and IN_OWN_MEMORY.issuperset(space.targets)
    if constraint.at_most is None or not (memory or constraint.metric == "size_bytes") or isinstance(task, ReadyMade):
        return None
    bits = None if leaves_out(space.parameters, task) else _least_bits(space)  # else no width is the smallest network
    architectures = list(_architectures(space))
    if bits is None or len(architectures) > MOST_ARCHITECTURES:
        return None
    least: int | None = None
    for arch in architectures:
        whole = least_weights(task, arch, 1.0)
        width = _least_width(space)
        if whole is None or constraint.violation(max(AT_MOST * width**2, _FEWEST) * whole * bits / 8) <= 0:
            return None  # far from certain, and pruning takes its time
        found = least_weights(task, arch, width) if width < 1.0 else whole
        if found is None or constraint.violation(found * bits / 8) <= 0:
            return None
        least = found if least is None else min(least, found)
    if least is None:
        return None
    why = f"its narrowest network has {least:,} weights in convolutions and linear layers, of {bits} bits at least"
    return Proof(constraint, info.unit, least * bits / 8, why)


def _least_width(space: Space) -> float:
    """The least share of channels that a layer may keep. By sensitivity a layer may keep next to nothing."""
    widths = [float(width) for width in space.parameters.get("width", (1.0,))]
    spread = any(name != UNIFORM for name in space.parameters.get("allocation", ()))
    return 1e-3 if spread and min(widths) < 1.0 else min(widths)


def _least_bits(space: Space) -> int | None:
    """Of any weight of any variant; None where somebody else decides it."""
    asked = {str(name) for name in space.parameters.get("precision", ())} | {"float32"}
    plans = (*space.choices.plans.values(), *(plan for made in space.choices.made.values() for plan in made.values()))
    asked |= {name for plan in plans for name in plan.precisions}
    if any(AS_GIVEN in offered for offered in space.target_precisions.values()):
        return None
    return min(LEAST_BITS.get(name, LEAST_FLOAT_BITS) for name in asked)


def _architectures(space: Space) -> Iterator[dict[str, Scalar]]:
    names = [name for name in space.parameters if name in space.arch_defaults]
    yield dict(space.arch_defaults)
    for values in itertools.islice(
        itertools.product(*(space.parameters[name] for name in names)), MOST_ARCHITECTURES + 1
    ):
        arch = {**space.arch_defaults, **dict(zip(names, values, strict=True))}
        if arch != dict(space.arch_defaults):
            yield arch


def keep_proofs(store: Store, found: tuple[Proof, ...]) -> None:
    """Write them down for whoever reads the folder; remove those of before."""
    path = store.root / IMPOSSIBLE
    if found:
        write_json(path, {"proofs": [proof.as_json() for proof in found]})
    else:
        path.unlink(missing_ok=True)


def kept_proofs(store: Store) -> tuple[Proof, ...]:
    """Raises ``DataError`` for a damaged file."""
    path = store.root / IMPOSSIBLE
    if not path.exists():
        return ()
    return read_record(path, lambda data: tuple(Proof.from_json(item) for item in data["proofs"]), REMEDY)
