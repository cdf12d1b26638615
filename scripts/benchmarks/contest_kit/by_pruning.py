"""torch-pruning's own recipe, and what somebody puts together by hand from it and the quantizers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.contest_kit.by_tools import IN_FLOAT, IR, ONNX, nncf_int8, onnxruntime_int8, openvino_float
from benchmarks.contest_kit.checkpoint import Source
from benchmarks.contest_kit.entries import Recipe
from edgedeploy.compress.training import fit
from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.reference.export import export_reference

WIDTHS: Final = (0.75, 0.5)
FINE_TUNING: Final = TrainRecipe(epochs=10, batch_size=4, learning_rate=6e-3, weight_decay=1e-2, bfloat16=True)
"""The learning rate is that of the package's own recovery. At half the channels it gives a Dice of 0.549 on the selection
cases where 1e-3 gives 0.275 (float: 0.604)."""
TOOL: Final = "torch-pruning"
HOW: Final = "MagnitudePruner, uniform, {width:g} of the channels, 10 epochs of fine-tuning"


def pruned(source: Source, width: float) -> Path:
    """The ONNX file of the pruned and fine-tuned network, which is made once."""
    import torch
    import torch_pruning as tp

    path = source.folder / "pruned" / f"w{width:g}.onnx"
    if path.is_file():
        return path
    path.parent.mkdir(exist_ok=True)
    model = source.task.build(**source.arch)
    model.load_state_dict(source.model.state_dict())
    pruner = tp.pruner.MagnitudePruner(
        model.eval(),
        torch.zeros(source.task.input_specs(**source.arch)[0].shape),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=1 - width,
        ignored_layers=[model.head],
    )
    pruner.step()
    fit(model, source.task, FINE_TUNING, arch=source.arch)
    export_reference(model.eval(), source.task.input_specs(**source.arch), path)
    return path


def _exported(source: Source, folder: Path, width: float) -> None:
    (folder / ONNX).write_bytes(pruned(source, width).read_bytes())


def _onwards(make: Any, source: Source, folder: Path, width: float) -> None:
    make(source, folder, reference=pruned(source, width))


def recipes() -> list[Recipe]:
    """Alone: as ONNX Runtime runs the pruned network. Chained: what comes of it by the other tools' recipes."""
    return [recipe for width in WIDTHS for recipe in _of_width(width)]


def _of_width(width: float) -> Iterator[Recipe]:
    how, name = HOW.format(width=width), f"pruned-{width:g}"
    yield Recipe(f"{name}-ort-float32", TOOL, "onnxruntime", "float32", ONNX, how, partial(_exported, width=width))
    for tool, suffix, target, precision, entry, make, settings in (
        ("OpenVINO", "ov-bfloat16", "openvino", "bfloat16", IR, openvino_float, {"INFERENCE_PRECISION_HINT": "bf16"}),
        ("NNCF", "nncf-int8", "openvino", "int8", IR, nncf_int8, IN_FLOAT),
        ("ONNX Runtime", "ort-int8", "onnxruntime", "int8", ONNX, onnxruntime_int8, {}),
    ):
        yield Recipe(
            name=f"{name}-{suffix}",
            tool=f"{TOOL}, then {tool}",
            target=target,
            precision=precision,
            entry=entry,
            how=how,
            make=partial(_onwards, make, width=width),
            settings=settings,
            side="chained",
        )
