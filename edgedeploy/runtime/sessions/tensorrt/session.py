"""TensorRT on the board's NVIDIA GPU, by its Python API (8.5 or newer, which names tensors).

A query includes all that a caller waits for: inputs to the GPU, the network, outputs back. ``trtexec`` times the
network alone, so its numbers are smaller and cannot be compared with these.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault, from_exception
from edgedeploy.runtime.sessions.tensorrt.case import Cuda
from edgedeploy.runtime.sessions.tensorrt.engine import cached_plan
from edgedeploy.runtime.sessions.tensorrt.layers import count_compute, kind_of, precision_of

PRECISIONS = "precisions"
"""The session setting with an artifact's precisions, separated by spaces: its own and those of single layers."""

_FUSED = re.compile(r" \+ |[\[\](),\s]+")
_ANOTHER_DEVICE = "across different models of devices"
"""TensorRT only warns about a plan of a similar GPU, and loads it."""


def import_runtime() -> None:
    """See :func:`edgedeploy.runtime.sessions.open.import_runtime`."""
    import tensorrt  # noqa: F401


def open_model(path: Path, settings: Mapping[str, str], threads: int) -> TensorRtSession:
    """``threads`` is not used: the CPU only starts the GPU's work."""
    return TensorRtSession(path, settings)


class TensorRtSession:
    memory_note = "its network is in the GPU's memory, which is not counted with the process's"

    def __init__(self, path: Path, settings: Mapping[str, str]) -> None:
        import tensorrt as trt

        self._trt = trt
        self._cuda = Cuda()
        self.device = self._cuda.device_name()
        self.version = str(trt.__version__)
        self._log = make_logger(trt)
        plan = cached_plan(trt, self._log, path, settings.get(PRECISIONS, "").split(), self.device)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        foreign = [line for line in self._log.warnings if _ANOTHER_DEVICE in line]
        if self._engine is None or foreign:
            found = "; ".join([*self._log.errors, *foreign])[:600] or "no reason given"
            raise RuntimeFault("open_failed", f"TensorRT {self.version} does not load its own engine: {found}")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self.inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in self.inputs]
        self._places = {name: self._place(name) for name in names}
        self._stream = self._cuda.stream()

    def _place(self, name: str) -> tuple[int, tuple[int, ...], Any]:
        """Allocate the GPU's memory for one tensor: address, shape, numpy type."""
        import numpy as np

        shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise RuntimeFault("open_failed", f"tensor {name!r} has an open dimension: {shape}")
        kind = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        address = self._cuda.allocate(max(1, int(np.prod(shape)) * kind.itemsize))
        self._context.set_tensor_address(name, address)
        return address, shape, kind

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        import numpy as np

        try:
            for name in self.inputs:
                address, shape, kind = self._places[name]
                values = np.ascontiguousarray(feeds[name], dtype=kind)
                if values.shape != shape:
                    raise RuntimeFault("run_failed", f"input {name!r} is {values.shape}, the engine takes {shape}")
                self._cuda.upload(address, _address(values), values.nbytes)
            if not self._context.execute_async_v3(self._stream):
                raise RuntimeFault(
                    "run_failed", f"TensorRT does not run the engine: {'; '.join(self._log.errors)[:600]}"
                )
            self._cuda.wait()
            found = {}
            for name in self.outputs:
                address, shape, kind = self._places[name]
                found[name] = np.empty(shape, kind)
                self._cuda.download(address, _address(found[name]), found[name].nbytes)
        except (RuntimeError, KeyError, TypeError, ValueError) as exc:
            raise from_exception(exc, "run_failed") from exc
        return found

    def _layers(self) -> list[Mapping[str, Any]]:
        """The engine inspector's description of each layer."""
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        try:
            layers: list[Mapping[str, Any]] = json.loads(text)["Layers"]
        except (ValueError, KeyError, TypeError) as exc:
            raise RuntimeFault("run_failed", f"TensorRT tells nothing of the engine's layers: {exc!r}") from exc
        if not all(isinstance(layer, Mapping) and "Name" in layer for layer in layers):
            raise RuntimeFault("run_failed", "TensorRT tells no more than the names of the engine's layers")
        return layers

    def executed(self) -> dict[str, int]:
        return count_compute((kind_of(layer), precision_of(layer)) for layer in self._layers())

    def profile(self, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See :class:`edgedeploy.runtime.sessions.open.Profiled`. A separate execution context is profiled, because
        profiling slows it down."""
        known = {str(layer["Name"]): layer for layer in self._layers()}
        profiler = _profiler(self._trt)
        context, self._context = self._context, self._engine.create_execution_context()
        try:
            self._context.profiler = profiler
            for name, (address, _, _) in self._places.items():
                self._context.set_tensor_address(name, address)
            for values in feeds:
                self.run(values)
        finally:
            self._context = context
        return [
            {
                "name": name,
                "operator": kind_of(known.get(name, {})),
                "kernel": str(known.get(name, {}).get("TacticName", "")),
                "device": self.device,
                "ns": round(1e6 * statistics.median(times_ms[1:] or times_ms)),
                "sources": [part for part in _FUSED.split(name) if part],
            }
            for name, times_ms in profiler.times_ms.items()
        ]


def _address(values: Any) -> Any:
    import ctypes

    return ctypes.c_void_p(values.ctypes.data)


def make_logger(trt: Any) -> Any:
    """A logger that keeps TensorRT's messages in the lists ``warnings`` and ``errors``. Its class is made here, because
    its base class comes with TensorRT."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.Severity.WARNING:
                self.warnings.append(message)
            elif severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()


def _profiler(trt: Any) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times_ms: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times_ms.setdefault(layer_name, []).append(ms)

    return Profiler()
