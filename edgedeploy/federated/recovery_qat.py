"""Rounds of quantization-aware training over sites: what the sites train, and the server averages, is int8 already.

The server builds the graph with quantizers once (:func:`student`), and its ``state_dict`` is what travels: weights, and the
logarithms of the activations' steps. In the first round each site's quantizers see batches of its own images before they
quantize; the mean of the logarithms is then the geometric mean of the sites' steps, from which the next round learns on.
Rounds, kills and checkpoints are those of :mod:`edgedeploy.federated.recovery`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.compress.qat.train import fit_student, frozen, qat_recipe, student_of
from edgedeploy.federated.recovery import Weights, load_into, recovery_app
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.artifact import Artifact, TensorSpec, random_feed
from edgedeploy.reference.quantized import export_quantized
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

    from edgedeploy.interfaces.task import Recoverable


def student(model: Any, specs: tuple[TensorSpec, ...], weight_bits: int = 8) -> Any:
    """The float ``model`` with quantizers: what a round trains. The same model gives the same names at every site. Raises
    ``Unsupported`` for a model that cannot be traced or has nothing to quantize."""
    return student_of(model, specs, weight_bits=weight_bits)


def qat_app(
    task: Recoverable,
    quantized: Callable[[], Any],
    specs: tuple[TensorSpec, ...],
    *,
    arch: Mapping[str, Any],
    cases: int,
    teacher: Callable[[], Any],
    epochs: int = 1,
) -> ClientApp:
    """A site's app: as :func:`edgedeploy.federated.recovery.recovery_app`, of a :func:`student`, with the float baseline as
    ``teacher``."""
    train = partial(train_quantized_here, specs=specs)
    return recovery_app(task, quantized, arch=arch, cases=cases, epochs=epochs, teacher=teacher, train_site=train)


def train_quantized_here(
    own: Any,
    task: Recoverable,
    *,
    arch: Mapping[str, Any],
    epochs: int,
    specs: tuple[TensorSpec, ...],
    seed: int = 0,
    teacher: Any | None = None,
) -> float:
    """Train a :func:`student` in place on a site's own images, in a round or for a copy of its own after the last one.
    Returns the mean loss of the last epoch; raises what :func:`edgedeploy.compress.training.fit` raises."""
    recipe = qat_recipe(task.recovery_recipe)
    recipe = replace(recipe, epochs=epochs, warmup_epochs=0.0, seed=recipe.seed + seed)
    report = fit_student(own, task, specs, recipe, arch=arch, teacher=teacher)
    return float(report.final_loss or 0.0)


def int8_of(
    quantized: Any, weights: Weights, specs: tuple[TensorSpec, ...], folder: Path, weight_bits: int = 8
) -> Artifact:
    """The int8 file for ONNX Runtime of averaged ``weights``, in ``folder``/artifact. Raises what
    :func:`~edgedeploy.reference.quantized.export_quantized` and the target's build raise."""
    folder.mkdir(parents=True, exist_ok=True)
    reference = export_quantized(frozen(load_into(quantized, weights)), specs, folder / "reference.onnx")
    request = BuildRequest(
        reference.path,
        reference.inputs,
        reference.outputs,
        "int8",
        lambda: iter([random_feed(specs, 0)]),  # to prove that the file runs: nothing is calibrated by it
        quantized=True,
        weight_bits=weight_bits,
    )
    return OnnxRuntimeTarget().build(request, folder / "artifact")
