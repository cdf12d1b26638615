"""Quantization-aware training: a float model learns to be int8 within a few epochs, with the float baseline as its teacher.

1. Batch norms are folded with their current statistics, so that the trained network is the one that runs.
2. Quantizers observe some training batches without changing values.
3. All quantizers start to quantize, and the model is trained.

:mod:`edgedeploy.compress.qat.graph` says where quantizers are placed, :mod:`edgedeploy.compress.qat.fakequant` what
they compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from edgedeploy.compress.batch import as_batch
from edgedeploy.compress.oversight import ALONE, Oversight, TrainReport
from edgedeploy.compress.training import fit
from edgedeploy.errors import DataError
from edgedeploy.interfaces.task import Recoverable, TrainRecipe
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.calling import call, flat_model, map_tensors, plain_model
from edgedeploy.reference.weights import Numbers

if TYPE_CHECKING:
    from torch import nn

    from edgedeploy.compress.qat.fakequant import Ranges

SHARE_OF_EPOCHS: Final = 0.5
SHARE_OF_RATE: Final = 0.1
LEAST_DISTILL_WEIGHT: Final = 0.5


@dataclass(frozen=True)
class QatSettings:
    """``ranges``: activation ranges are trained from their observed start (``learned``) or follow the data
    (``observed``). ``percentile`` and ``momentum`` are those of the moving average; ``watched_batches`` are observed
    before anything is quantized."""

    ranges: Ranges = "learned"
    percentile: float = 100.0
    momentum: float = 0.1
    watched_batches: int = 16


def qat_recipe(recovery: TrainRecipe) -> TrainRecipe:
    """The recipe for training with quantizers, derived from the task's recipe for recovering pruned models: half the
    epochs, a tenth of the learning rate, and the teacher's share of the loss at least one half.

    It trains in float32: bfloat16 has the 8 significant bits that int8 has, and would round the quantizers' results
    again. It uses the model's own resolution from the first epoch, because activation ranges depend on the resolution.
    """
    return replace(
        recovery,
        epochs=max(1, round(recovery.epochs * SHARE_OF_EPOCHS)),
        learning_rate=recovery.learning_rate * SHARE_OF_RATE,
        distill_weight=max(LEAST_DISTILL_WEIGHT, recovery.distill_weight),
        bfloat16=False,
        early_epochs=0,
        early_arch={},
    )


def train_quantized(
    model: nn.Module,
    task: Recoverable,
    specs: tuple[TensorSpec, ...],
    *,
    arch: Mapping[str, Scalar],
    teacher: nn.Module,
    recipe: TrainRecipe | None = None,
    settings: QatSettings | None = None,
    kept_float: Mapping[str, Numbers] | None = None,
    weight_bits: int = 8,
    oversight: Oversight = ALONE,
) -> nn.Module:
    """An int8 model trained from the float ``model``, with frozen quantizers and in evaluation mode. ``model`` is not
    changed.

    ``specs`` are its inputs with batch size 1. The seed of ``recipe`` decides the result; without a recipe,
    :func:`qat_recipe` derives one from the task's recovery. ``kept_float`` maps layer names of the float reference to
    weights: layers with these weights stay float. ``weight_bits`` is 7 for boards whose int8 sums saturate.

    Raises ``Unsupported`` for a model that cannot be traced, has nothing to quantize or lacks a layer of
    ``kept_float``, ``BuildError`` when training diverges, ``DataError`` without training batches.
    """
    settings = settings or QatSettings()
    recipe = recipe or qat_recipe(task.recovery_recipe)
    student = student_of(model, specs, settings, kept_float=kept_float, weight_bits=weight_bits)
    told = {**asdict(settings), "kept_float": sorted(kept_float or {}), "weight_bits": weight_bits}
    fit_student(
        student, task, specs, recipe, arch=arch, teacher=teacher, settings=settings, told=told, oversight=oversight
    )
    return frozen(student)


def student_of(
    model: nn.Module,
    specs: tuple[TensorSpec, ...],
    settings: QatSettings | None = None,
    *,
    kept_float: Mapping[str, Numbers] | None = None,
    weight_bits: int = 8,
) -> nn.Module:
    """``model`` as a graph with quantizers that all observe: what is trained. Its ``state_dict`` has the weights, the ranges
    and whether they are observed still, so that it can be averaged with others of the same model. Raises as
    :func:`train_quantized`."""
    import torch

    from edgedeploy.compress.qat import graph as quantgraph

    settings = settings or QatSettings()
    names = [spec.name for spec in specs]
    pair = [replace(spec, shape=(2, *spec.shape[1:])) for spec in specs]
    inputs = [torch.from_numpy(value) for value in random_feed(pair, 0).values()]
    graph = quantgraph.fold_batch_norms(quantgraph.trace(flat_model(plain_model(model), names), inputs))
    placed = quantgraph.place_quantizers(
        graph,
        settings.ranges,
        percentile=settings.percentile,
        momentum=settings.momentum,
        kept=quantgraph.layers_with(graph, kept_float or {}),
        weight_bits=weight_bits,
    )
    return _structured(placed, _structure(model, dict(zip(names, inputs, strict=True))))


def fit_student(
    student: Any,
    task: Recoverable,
    specs: tuple[TensorSpec, ...],
    recipe: TrainRecipe,
    *,
    arch: Mapping[str, Scalar],
    teacher: nn.Module | None,
    settings: QatSettings | None = None,
    told: Mapping[str, object] | None = None,
    oversight: Oversight = ALONE,
) -> TrainReport:
    """Train :func:`student_of`'s graph in place; quantizers that observe still first see some batches. ``told`` is as
    ``settings`` of :func:`edgedeploy.compress.training.fit`, whose errors it raises."""
    from edgedeploy.compress.qat import graph as quantgraph

    batches = (settings or QatSettings()).watched_batches

    def prepare() -> None:
        if any(quantizer.observing for quantizer in quantgraph.quantizers(student)):
            _watch(student, task, recipe, arch, specs, batches)

    return fit(student, task, recipe, arch=arch, teacher=teacher, oversight=oversight, prepare=prepare, settings=told)


def frozen(student: Any) -> nn.Module:
    """The int8 model of a trained student, which is not changed, in evaluation mode."""
    from edgedeploy.compress.qat import graph as quantgraph

    return _structured(quantgraph.freeze(student.graph), student.structure)


def _structure(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """What ``model`` answers, with empty tensors: a quantized graph gives its tensors flat."""
    import torch

    with torch.no_grad():
        return map_tensors(call(model, inputs), lambda tensor: torch.empty(0))


def _structured(graph: nn.Module, structure: Any) -> nn.Module:
    """A module that answers in the structure of the user's model, for the task's own loss and for the outputs' names."""
    from torch import nn

    class Structured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graph = graph
            self.structure = structure
            self.train(graph.training)

        def forward(self, *tensors: Any) -> Any:
            found = iter(self.graph(*tensors))
            return map_tensors(self.structure, lambda _: next(found))

    return Structured()


def _watch(
    student: nn.Module,
    task: Recoverable,
    recipe: TrainRecipe,
    arch: Mapping[str, Scalar],
    specs: tuple[TensorSpec, ...],
    batches: int,
) -> None:
    """Let every quantizer see ``batches`` training batches, then begin to quantize."""
    import torch

    from edgedeploy.compress.qat import graph as quantgraph

    seen = 0
    with torch.no_grad():
        for batch in islice(task.batches(recipe.seed, recipe.batch_size, **arch), batches):
            call(student, as_batch(batch, specs).inputs)
            seen += 1
    if not seen:
        found = f"the train split gave no batch at batch_size {recipe.batch_size}"
        raise DataError("ranges of activations", found, "Add training cases, or change batch_size")
    for quantizer in quantgraph.quantizers(student):
        quantizer.stop_observing()
