"""LiteRT on the CPU: the interpreter of ai-edge-litert, or of tflite-runtime on boards that have only that."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault, from_exception
from edgedeploy.runtime.sessions.counting import count_layers
from edgedeploy.runtime.sessions.litert.operators import ACTIVATION_INPUT, COMPUTE_OPERATORS

RUNTIMES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
)
"""Module with an ``Interpreter`` and the distribution that brings it, the maintained one first."""

LAYERS = "layers"
"""The setting that names the reference's layer of each compute operator, in the file's order: a JSON list."""

_PRECISIONS = {"float32": "float32", "float16": "float16", "int8": "int8", "uint8": "int8", "int16": "int16"}


def import_runtime() -> None:
    """See :func:`edgedeploy.runtime.sessions.open.import_runtime`."""
    _find_runtime()


def open_model(path: Path, settings: Mapping[str, str], threads: int) -> LiteRtSession:
    """``settings``: ``delegate`` = ``none`` runs the built-in kernels instead of XNNPACK; ``layout:NAME`` = ``0,3,1,2``
    transposes an output to the reference's order of dimensions (a converter may leave an output channels last)."""
    return LiteRtSession(path, settings, threads)


class LiteRtSession:
    """Inputs and outputs have the reference's float types, even if those of the file are int8: the conversion is then
    part of the timed query, as it is in a product."""

    def __init__(self, path: Path, settings: Mapping[str, str], threads: int) -> None:
        module, self.version = _find_runtime()
        options: dict[str, Any] = {"model_path": str(path), "num_threads": threads}
        if settings.get("delegate") == "none":
            options["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self._path, self._threads, self._settings = path, threads, settings
        self._interpreter = module.Interpreter(**options)
        self._interpreter.allocate_tensors()
        runner = self._interpreter.get_signature_runner(_signature(self._interpreter))
        self._inputs = {name: _Port(details) for name, details in runner.get_input_details().items()}
        self._outputs = {
            name: _Port(details, settings.get(f"layout:{name}", ""))
            for name, details in runner.get_output_details().items()
        }
        self.inputs = list(self._inputs)
        self.outputs = list(self._outputs)
        self.device = _device(self._nodes())

    def encode(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays as the file takes them. Raises ``RuntimeFault`` for one that it cannot take."""
        return {name: port.encode(name, feeds[name]) for name, port in self._inputs.items()}

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        try:
            for name, value in self.encode(feeds).items():
                self._interpreter.set_tensor(self._inputs[name].index, value)
            self._interpreter.invoke()
        except Exception as exc:  # the interpreter raises ValueError and RuntimeError for the same things by turns
            raise from_exception(exc, "run_failed") from exc
        return {name: port.decode(self._interpreter.get_tensor(port.index)) for name, port in self._outputs.items()}

    def executed(self) -> dict[str, int]:
        """Determined from the types of each layer's tensors: the interpreter has no profile, and types decide the
        kernels.

        ``int8-dynamic`` is a float layer with int8 weights, whose input the kernel quantizes at each query;
        ``float16-weights`` is float32 arithmetic on weights that are stored as float16.
        """
        types = self._types()
        others = [types.get(int(node["inputs"][0]), "") for node in self._nodes() if len(node["inputs"])]
        return count_layers(self.layer_precisions(), others)

    def layer_precisions(self) -> list[str]:
        """As :meth:`executed`, layer by layer in the file's order."""
        return precisions_of(self._nodes(), self._types())

    def profile(self, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See :class:`~edgedeploy.runtime.sessions.open.Profiled`. Raises ``RuntimeFault`` where the release cannot."""
        from edgedeploy.runtime.sessions.litert import partitions
        from edgedeploy.runtime.sessions.litert import profile as litert_profile

        if self._settings.get("delegate") == "none":
            raise RuntimeFault("run_failed", "LiteRT profiles its kernels with XNNPACK alone")
        self.run(feeds[0])
        output_bytes = {
            name: int(self._interpreter.get_tensor(port.index).nbytes) for name, port in self._outputs.items()
        }
        encoded = [self.encode(feed) for feed in feeds]
        events = litert_profile.profile(self._path, self._threads, encoded, output_bytes)
        return partitions.layers(events, self._nodes(), json.loads(self._settings.get(LAYERS, "[]")))

    def _nodes(self) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = self._interpreter._get_ops_details()
        return nodes

    def _types(self) -> dict[int, str]:
        import numpy as np

        return {int(item["index"]): np.dtype(item["dtype"]).name for item in self._interpreter.get_tensor_details()}


class _Port:
    """One input or output: its tensor, and the scale and zero point of its integers."""

    def __init__(self, details: Mapping[str, Any], layout: str = "") -> None:
        import numpy as np

        self._order = [int(axis) for axis in layout.split(",")] if layout else None

        self.index = int(details["index"])
        self._dtype = np.dtype(details["dtype"])
        parameters = details["quantization_parameters"]
        self._quantized = self._dtype.kind in "iu" and len(parameters["scales"]) > 0
        if self._quantized:
            self._scale = np.float32(parameters["scales"][0])
            self._zero = int(parameters["zero_points"][0])

    def encode(self, name: str, value: Any) -> Any:
        """``value`` in the tensor's type. Integers are converted to a narrower type only without loss."""
        import numpy as np

        if value.dtype == self._dtype:
            return value
        if self._quantized and value.dtype.kind == "f":
            limits = np.iinfo(self._dtype)
            steps = np.rint(value / self._scale) + self._zero
            return np.clip(steps, limits.min, limits.max).astype(self._dtype)
        if value.dtype.kind in "iu" and self._dtype.kind in "iu":
            narrowed = value.astype(self._dtype)
            if (narrowed == value).all():
                return narrowed
        raise RuntimeFault("run_failed", f"input {name!r} is {value.dtype}, the model takes {self._dtype}")

    def decode(self, value: Any) -> Any:
        import numpy as np

        if self._order is not None:
            value = np.ascontiguousarray(np.transpose(value, self._order))
        if not self._quantized:
            return value
        return (value.astype(np.float32) - np.float32(self._zero)) * self._scale


def _find_runtime() -> tuple[Any, str]:
    """The interpreter's module and its release. Raises ``ModuleNotFoundError`` naming what to install, or ``ImportError``
    with the reason where one is installed."""
    reasons = []
    error: type[ImportError] = ModuleNotFoundError
    for name, distribution in RUNTIMES:
        try:
            return importlib.import_module(name), importlib.metadata.version(distribution)
        except ImportError as exc:  # PackageNotFoundError is one
            reasons.append(f"{distribution}: {exc}")
            if not isinstance(exc, ModuleNotFoundError):
                error = ImportError
    raise error(f"no LiteRT runtime ({'; '.join(reasons)}): pip install ai-edge-litert")


def _signature(interpreter: Any) -> str:
    names = list(interpreter.get_signature_list())
    if len(names) != 1:
        raise RuntimeFault("open_failed", f"the model has {len(names)} signatures, one was expected")
    return str(names[0])


def _device(nodes: list[dict[str, Any]]) -> str:
    """``CPU``, and how many partitions of the graph a delegate runs: each border between partitions costs a copy."""
    taken = [node["op_name"] for node in nodes if "delegate" in str(node["op_name"]).lower()]
    if not taken:
        return "CPU"
    pieces = "1 partition" if len(taken) == 1 else f"{len(taken)} partitions"
    return f"CPU, {taken[0]} ({pieces})"


def precisions_of(nodes: list[dict[str, Any]], types: Mapping[int, str]) -> list[str]:
    """The precision of each compute layer. ``types`` maps tensor index to numpy's name of its element type."""
    widened = {
        int(node["outputs"][0]): types.get(int(node["inputs"][0]), "")
        for node in nodes
        if node["op_name"] == "DEQUANTIZE"
    }
    return [_precision(node, types, widened) for node in nodes if node["op_name"] in COMPUTE_OPERATORS]


def _precision(node: Mapping[str, Any], types: Mapping[int, str], widened: Mapping[int, str]) -> str:
    activation = types.get(int(node["inputs"][ACTIVATION_INPUT.get(node["op_name"], 0)]), "")
    weight = int(node["inputs"][1])
    precision = _PRECISIONS.get(activation, activation)
    if precision == "float32" and types.get(weight) in ("int8", "int4"):
        return "int8-dynamic"
    if precision == "float32" and widened.get(weight) == "float16":
        return "float16-weights"
    return precision
