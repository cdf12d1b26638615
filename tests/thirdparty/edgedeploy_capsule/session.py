"""Runs capsules with ONNX Runtime. This file alone goes to boards: Python 3.8, nothing of this package beside it."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgedeploy.runtime.faults import RuntimeFault

MAGIC = b"CAPSULE1"
FLOATS = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names of types, where they are not numpy's."""


def open_model(path: Path, settings: Mapping[str, str], threads: int) -> CapsuleSession:
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        raise RuntimeFault("open_failed", f"{path.name} is no capsule: it begins with {data[:8]!r}")
    return CapsuleSession(zlib.decompress(data[len(MAGIC) :]), threads)


class CapsuleSession:
    def __init__(self, model: bytes, threads: int) -> None:
        import onnxruntime

        self._model = model
        self._threads = threads
        self._session = self._open()
        self.inputs = [item.name for item in self._session.get_inputs()]
        self.outputs = [item.name for item in self._session.get_outputs()]
        self.device = f"capsule on {self._session.get_providers()[0]}"
        self.version = str(onnxruntime.__version__)

    def _open(self, profile: str = "") -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # another model may be timed in turn
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        return onnxruntime.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return dict(zip(self.outputs, self._session.run(self.outputs, dict(feeds))))  # noqa: B905  (Python 3.8)
        except Exception as exc:  # its exceptions have no common base
            raise RuntimeFault("run_failed", f"{type(exc).__name__}: {exc}") from exc

    def executed(self) -> dict[str, int]:
        """Counted in the profile of one inference, because ONNX Runtime may choose other kernels than the file names."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(profile=str(Path(folder) / "run"))
            session.run(None, {item.name: np.zeros(item.shape, _type(item.type)) for item in session.get_inputs()})
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        kernels = [event for event in events if str(event.get("name", "")).endswith("_kernel_time")]
        operators = [str(event["args"]["op_name"]) for event in kernels]
        products = [name for name in operators if "Conv" in name or "Gemm" in name or "MatMul" in name]
        narrow = sum(name.startswith("Q") or "Integer" in name for name in products)
        return {"int8": narrow, "float32": len(products) - narrow}


def _type(name: str) -> str:
    """``tensor(float)`` as numpy calls it."""
    plain = name[len("tensor(") : -1]
    return FLOATS.get(plain, plain)
