"""ONNX files that other tools quantized, and float64 ones."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from foreign_onnx import save
from onnx import TensorProto, helper
from small_onnx import convolutional, transformer_block


def _static(path: Path, form: str) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self._rows = iter([{"image": rng.random((1, 3, 16, 16), np.float32)} for _ in range(4)])

        def get_next(self) -> Any:
            return next(self._rows, None)

    plain = convolutional(path.with_name("float.onnx"))
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(str(plain), str(path), Reader(), quant_format=getattr(QuantFormat, form), per_channel=True)
    return path


def pairs(path: Path) -> Path:
    """QuantizeLinear and DequantizeLinear around float operators."""
    return _static(path, "QDQ")


def operators(path: Path) -> Path:
    """QLinearConv and the like."""
    return _static(path, "QOperator")


def dynamic(path: Path) -> Path:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(transformer_block(path.with_name("float.onnx"))), str(path))
    return path


def four_bits(path: Path) -> Path:
    """MatMulNBits of ONNX Runtime."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    logging.getLogger(MatMulNBitsQuantizer.__module__).setLevel(logging.WARNING)
    quantizer = MatMulNBitsQuantizer(onnx.load(str(transformer_block(path.with_name("float.onnx")))), block_size=32)
    quantizer.process()
    onnx.save(quantizer.model.model, str(path))
    return path


def four_bit_pairs(path: Path) -> Path:
    """The standard's own INT4 weights behind a DequantizeLinear."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["f"], name="/dequantize", axis=0, block_size=32),
        helper.make_node("MatMul", ["x", "f"], ["y"], name="/product"),
    ]
    scale = (rng.random((2, 16)) / 20).astype(np.float32)
    save(path, nodes, inputs={"x": (TensorProto.FLOAT, [1, 64])}, weights={"scale": scale}, opset=21)
    model = onnx.load(str(path))
    values = rng.integers(-8, 8, 64 * 16).tolist()
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.INT4, [64, 16], values))
    model.ir_version = 10
    onnx.save(model, str(path))
    return path


def doubles(path: Path) -> Path:
    weights = {"w": np.random.default_rng(0).standard_normal((8, 4)) / 3}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], name="/product"), helper.make_node("Tanh", ["m"], ["y"])]
    kind = TensorProto.DOUBLE
    return save(path, nodes, inputs={"x": (kind, [1, 8])}, outputs={"y": (kind, [1, 4])}, weights=weights)


def double_convolution(path: Path) -> Path:
    """ONNX Runtime has no such kernel."""
    kind = TensorProto.DOUBLE
    weights = {"w": np.random.default_rng(0).standard_normal((2, 4, 3, 3))}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="/conv")]
    return save(path, nodes, inputs={"x": (kind, [1, 4, 8, 8])}, outputs={"y": (kind, None)}, weights=weights)


GIVEN = (pairs, operators, dynamic, four_bits, four_bit_pairs, doubles)
