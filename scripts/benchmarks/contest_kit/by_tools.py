"""The tools' own recipes, as their introductions have them, on the contest's checkpoint and calibration images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.contest_kit.checkpoint import Source
from benchmarks.contest_kit.entries import Recipe
from edgedeploy.interfaces.task import Case

ONNX: Final = "model.onnx"
IR: Final = "model.xml"
TFLITE: Final = "model.tflite"
IN_FLOAT: Final = {"INFERENCE_PRECISION_HINT": "f32"}
MAX_DROP: Final = 0.01
"""Dice that NNCF's accuracy control may lose, its own default."""


# -- ONNX Runtime


def onnxruntime_float32(source: Source, folder: Path) -> None:
    shutil.copyfile(source.reference.path, folder / ONNX)


def onnxruntime_float16(source: Source, folder: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(str(source.reference.path)), keep_io_types=True)
    onnx.save(model, str(folder / ONNX))


def onnxruntime_int8(source: Source, folder: Path, method: str = "MinMax", reference: Path | None = None) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # an untyped library's class
        def __init__(self) -> None:
            self.cases = iter(source.calibration())

        def get_next(self) -> Any:
            return next(self.cases, None)

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(reference or source.reference.path), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(folder / ONNX),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
    )
    prepared.unlink()


def onnxruntime_dynamic(source: Source, folder: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(source.reference.path), str(folder / ONNX))


# -- OpenVINO and NNCF


def openvino_float(source: Source, folder: Path, reference: Path | None = None) -> None:
    """``save_model`` with its defaults, which keep constants in float16."""
    import openvino

    openvino.save_model(openvino.convert_model(str(reference or source.reference.path)), str(folder / IR))


def nncf_int8(source: Source, folder: Path, preset: str = "", reference: Path | None = None) -> None:
    import nncf
    import openvino

    model = openvino.convert_model(str(reference or source.reference.path))
    data = nncf.Dataset([feed["image"] for feed in source.calibration()])
    options = {"preset": nncf.QuantizationPreset[preset]} if preset else {}
    openvino.save_model(nncf.quantize(model, data, **options), str(folder / IR))


def nncf_accuracy_control(source: Source, folder: Path) -> None:
    """Layers go back to float until the Dice of the selection cases has lost at most ``MAX_DROP``."""
    import nncf
    import openvino

    task, arch = source.task, source.arch

    def transform(case: Case) -> Any:
        return task.inputs(case, **arch)["image"]

    def validate(compiled: Any, cases: Iterator[Case]) -> tuple[float, None]:
        scores = [task.evaluate({"logits": compiled(transform(case))[0]}, case)["dice_mean"] for case in cases]
        return float(np.mean([score for score in scores if score is not None])), None

    model = openvino.convert_model(str(source.reference.path))
    quantized = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(task.cases("calibration"), transform),
        nncf.Dataset(task.cases("selection")),
        validate,
        max_drop=MAX_DROP,
    )
    openvino.save_model(quantized, str(folder / IR))


# -- LiteRT


def litert_float32(source: Source, folder: Path) -> None:
    import litert_torch
    import torch

    class Named(torch.nn.Module):
        """Gives input and output the names by which the session asks for them."""

        def __init__(self) -> None:
            super().__init__()
            self.module = source.model

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {source.reference.outputs[0].name: self.module(image)}

    sample = {"image": torch.from_numpy(np.array(source.calibration()[0]["image"]))}
    litert_torch.convert(Named().eval(), sample_kwargs=sample).export(str(folder / TFLITE))


def _litert(quantize: Callable[[Any, list[dict[str, Any]]], Any], source: Source, folder: Path) -> None:
    from ai_edge_quantizer import quantizer

    litert_float32(source, folder)
    floating = (folder / TFLITE).rename(folder / "float.tflite")
    result = quantize(quantizer.Quantizer(str(floating)), source.calibration())
    result.export_model(str(folder / TFLITE))
    floating.unlink()


def _float16(tool: Any, feeds: list[dict[str, Any]]) -> Any:
    tool.add_weight_only_config(".*", "*", num_bits=16, algorithm_key="float_casting")
    return tool.quantize()


def _static(tool: Any, feeds: list[dict[str, Any]]) -> Any:
    from ai_edge_quantizer import recipe

    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    return tool.quantize(tool.calibrate({"serving_default": feeds}))


def _dynamic_range(tool: Any, feeds: list[dict[str, Any]]) -> Any:
    from ai_edge_quantizer import recipe

    tool.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    return tool.quantize()


# -- the list


def _of_onnxruntime() -> Iterator[Recipe]:
    tool, target = "ONNX Runtime", "onnxruntime"
    yield Recipe("ort-float32", tool, target, "float32", ONNX, "the exported file", onnxruntime_float32)
    how = "transformers.float16.convert_float_to_float16(keep_io_types=True)"
    yield Recipe("ort-float16", tool, target, "float16", ONNX, how, onnxruntime_float16)
    for method in ("MinMax", "Entropy", "Percentile"):
        how = f"quant_pre_process, quantize_static(QDQ, U8S8, per_channel, {method})"
        make = partial(onnxruntime_int8, method=method)
        yield Recipe(f"ort-int8-{method.lower()}", tool, target, "int8", ONNX, how, make)
    yield Recipe("ort-int8-dynamic", tool, target, "int8-dynamic", ONNX, "quantize_dynamic", onnxruntime_dynamic)


def _of_openvino() -> Iterator[Recipe]:
    target = "openvino"
    how = "convert_model, save_model; INFERENCE_PRECISION_HINT = "
    yield Recipe("ov-float32", "OpenVINO", target, "float32", IR, f"{how}f32", openvino_float, IN_FLOAT)
    bf16 = {"INFERENCE_PRECISION_HINT": "bf16"}
    yield Recipe("ov-bfloat16", "OpenVINO", target, "bfloat16", IR, f"{how}bf16", openvino_float, bf16)
    yield Recipe("nncf-int8", "NNCF", target, "int8", IR, "nncf.quantize", nncf_int8, IN_FLOAT)
    make = partial(nncf_int8, preset="MIXED")
    yield Recipe("nncf-int8-mixed", "NNCF", target, "int8", IR, "nncf.quantize(preset=MIXED)", make, IN_FLOAT)
    how = f"nncf.quantize_with_accuracy_control(max_drop={MAX_DROP})"
    yield Recipe("nncf-int8-accuracy-control", "NNCF", target, "int8", IR, how, nncf_accuracy_control, IN_FLOAT)


def _of_litert() -> Iterator[Recipe]:
    for precision, name, how, make in (
        ("float32", "float32", "litert_torch.convert", litert_float32),
        ("float16", "float16", "ai-edge-quantizer, weights as float16", partial(_litert, _float16)),
        ("int8", "int8", "ai-edge-quantizer, recipe.static_wi8_ai8", partial(_litert, _static)),
        (
            "int8-dynamic",
            "int8-dynamic",
            "ai-edge-quantizer, recipe.dynamic_wi8_afp32",
            partial(_litert, _dynamic_range),
        ),
    ):
        yield Recipe(f"litert-{name}", "LiteRT", "litert", precision, TFLITE, how, make)


def recipes() -> list[Recipe]:
    """Of the tools that run in this environment and need no training."""
    return [*_of_onnxruntime(), *_of_openvino(), *_of_litert()]
