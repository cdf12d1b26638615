"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault, from_exception
from edgedeploy.runtime.sessions.counting import count_layers

COMPUTE_OPERATORS = ("Conv", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Einsum", "Attention")
"""An operator whose name contains one of these is a compute layer: FusedConv, NhwcFusedConv, QLinearConv, QGemm,
ConvTranspose, DynamicQuantizeMatMul, MatMulNBits ..."""

LEAN = "edgedeploy.lean"
IN_TILES = {LEAN: "1"}
"""Settings of a session that runs tiles, for which memory matters most: no arena, which grows by powers of two and keeps
what it had, and no plan of memory, which is made after the first run beside what that one took. MeshNet on 110x146x146
voxels (Zen 4, 2026-11-29): 257 MiB in place of 357 after five tiles, for 12 % more CPU time."""

BLOCKWISE = "MatMulNBits"
"""Products with weights in blocks. How many bits they have is told by the shape of the weights, which a profile leaves out
where a kernel has packed them for itself: ``executed`` then looks at a session that packs nothing."""
SMALLEST_BLOCK = 16
"""Numbers of weights that share a scale there, at least."""

_KERNEL_TIME = "_kernel_time"

_REWRITTEN = re.compile(r"(_token_\d+|_nchwc)+$")
"""Suffix that graph rewriting adds to a name. Without it, the name is that of the node or of its output tensor."""

_FUSED = re.compile(r"^fused |(_token_\d+|_nchwc|/\w+Fusion/?)+$")
"""What a fusion adds to the name of the node that it began with: ``fused linear``, ``linear/MatMulAddFusion``. A node of the
file may have such a name of its own."""

_TOO_NEW = (
    ("ONNX IR version", re.compile(r"model IR version: (\d+), max supported IR version: (\d+)")),
    ("operator set", re.compile(r"Opset (\d+) is under development.* is till opset (\d+)", re.DOTALL)),
)
"""Messages of ONNX Runtime for a file that is too new: the file's version, and the newest version it reads."""

_NUMPY_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_NUMPY_TYPES.update({f"tensor({name})": name for name in ("int8", "uint8", "int16", "int32", "int64", "bool")})

_PRECISIONS = {
    "float": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "double": "float64",
    "int8": "int8",
    "uint8": "int8",
}


def import_runtime() -> None:
    """See :func:`edgedeploy.runtime.sessions.open.import_runtime`."""
    import onnxruntime  # noqa: F401


def open_model(path: Path, settings: Mapping[str, str], threads: int) -> OnnxRuntimeSession:
    """``settings`` are session configuration entries, by ONNX Runtime's own names."""
    return OnnxRuntimeSession(path, settings, threads)


class OnnxRuntimeSession:
    def __init__(self, path: Path, settings: Mapping[str, str], threads: int) -> None:
        import onnxruntime

        self._path = path
        self._settings = settings
        self._threads = threads
        self._session = self._open(profile_prefix=None)
        self._fed: Mapping[str, Any] = {}
        self.inputs = [item.name for item in self._session.get_inputs()]
        self.outputs = [item.name for item in self._session.get_outputs()]
        self.device = self._session.get_providers()[0]
        self.version = str(onnxruntime.__version__)

    def _open(self, profile_prefix: str | None, more: Mapping[str, str] | None = None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Idle worker threads spin by default. Two processes are timed in turn on the same cores, and spinning threads
        # of the one that waits would steal the core of the one that runs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = options.enable_mem_pattern = LEAN not in self._settings
        for key, value in {**self._settings, **(more or {})}.items():
            if key != LEAN:
                options.add_session_config_entry(key, value)
        if profile_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile_prefix
        try:
            return onnxruntime.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # onnxruntime's exceptions derive from Exception alone
            raise refusal(exc, str(onnxruntime.__version__)) from exc

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self._fed = feeds
        try:
            values = self._session.run(self.outputs, feeds)
        except Exception as exc:  # onnxruntime's exceptions derive from Exception alone
            raise from_exception(exc, "run_failed") from exc
        return {name: values[index] for index, name in enumerate(self.outputs)}

    def executed(self) -> dict[str, int]:
        """Read from the profile of one inference in a second session, because profiling would slow the timed session
        down. The inputs are those of the last inference, or else ones: kernels do not depend on values, but an index or
        a length may be wrong."""
        import numpy as np

        feeds = self._fed or {
            item.name: np.ones([n if isinstance(n, int) else 1 for n in item.shape], _numpy_type(item.type))
            for item in self._session.get_inputs()
        }
        events = self._events([feeds])
        if any(_operator(event) == BLOCKWISE for event in events):
            events = self._events([feeds], {"session.disable_prepacking": "1"})
        return executed_from_profile(events)

    def profile(self, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See :class:`edgedeploy.runtime.sessions.open.Profiled`."""
        return layers_from_profile(self._events(feeds))

    def _events(self, feeds: Sequence[Mapping[str, Any]], more: Mapping[str, str] | None = None) -> list[Any]:
        """ONNX Runtime's profile of one inference for each of ``feeds``, in a second session with ``more`` settings."""
        with tempfile.TemporaryDirectory(prefix="edgedeploy-profile-") as folder:
            session = self._open(profile_prefix=str(Path(folder) / "run"), more=more)
            for values in feeds:
                session.run(None, dict(values))
            events: list[Any] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            return events


def refusal(exc: Exception, version: str) -> RuntimeFault:
    """The fault for a file that ONNX Runtime does not load: ``runtime_too_old`` blames the board, ``open_failed`` the
    file."""
    for what, pattern in _TOO_NEW:
        match = pattern.search(str(exc))
        if match is not None:
            has, most = match.groups()
            found = f"onnxruntime {version} reads files up to {what} {most}, and this one has {has}"
            return RuntimeFault("runtime_too_old", found)
    return from_exception(exc, "open_failed")


def _numpy_type(onnx_type: str) -> str:
    if onnx_type not in _NUMPY_TYPES:
        raise RuntimeFault("run_failed", f"an input of type {onnx_type} has no numpy equivalent")
    return _NUMPY_TYPES[onnx_type]


def executed_from_profile(events: list[Any]) -> dict[str, int]:
    """Compute layers by precision from ONNX Runtime's profile (a list of Chrome trace events). Of a model without any, every
    node on floats counts."""
    layers: dict[str, str] = {}
    others: dict[str, str] = {}
    for event in events:
        if event.get("cat") != "Node" or not str(event.get("name", "")).endswith(_KERNEL_TIME):
            continue
        operator = str(event["args"].get("op_name", ""))
        types = event["args"].get("input_type_shape", [])
        precision = _layer_precision(operator, types)
        if precision is not None:
            layers[event["name"]] = precision
        else:
            others[event["name"]] = _first_precision(types) or ""
    return count_layers(list(layers.values()), list(others.values()))


def layers_from_profile(events: list[Any]) -> list[dict[str, Any]]:
    """Nodes in the order they ran, with the median of their times (the profiler counts in microseconds)."""
    found: dict[str, dict[str, Any]] = {}
    times_us: dict[str, list[int]] = {}
    for event in events:
        title = str(event.get("name", ""))
        if event.get("cat") != "Node" or not title.endswith(_KERNEL_TIME):
            continue
        name = title[: -len(_KERNEL_TIME)]
        operator = str(event["args"].get("op_name", ""))
        device = str(event["args"].get("provider", ""))
        sources = list(dict.fromkeys((_REWRITTEN.sub("", name), _FUSED.sub("", name))))
        found.setdefault(
            name, {"name": name, "operator": operator, "kernel": operator, "device": device, "sources": sources}
        )
        times_us.setdefault(name, []).append(int(event["dur"]))
    return [{**layer, "ns": _steady_ns(times_us[name])} for name, layer in found.items()]


def _steady_ns(times_us: Sequence[int]) -> int:
    """The median without the first run, in which caches are cold and memory arenas are empty."""
    return round(1000 * statistics.median(times_us[1:] or times_us))


def _layer_precision(operator: str, input_types: list[Any]) -> str | None:
    """The precision of a layer's products; None if it is not a compute layer. A product of int64 shapes is not one
    either.

    The names of integer operators decide, because some of them have a float input (DynamicQuantizeMatMul quantizes it
    at each query). For other operators the type of the first input decides. MatMulNBits has weights of 4 or 8 bits.
    """
    if not any(name in operator for name in COMPUTE_OPERATORS):
        return None
    if operator.startswith("DynamicQuantize"):
        return "int8-dynamic"
    if operator.startswith(("QLinear", "QGemm")) or "Integer" in operator:
        return "int8"
    if operator == BLOCKWISE:
        return "int8-weights" if _has_whole_bytes(input_types) else "int4-weights"
    return _first_precision(input_types)


def _operator(event: Mapping[str, Any]) -> str:
    return str(event.get("args", {}).get("op_name", ""))


def _has_whole_bytes(input_types: list[Any]) -> bool:
    """Whether the weights (outputs, blocks, bytes of a block) hold a byte for each number that an output multiplies. Blocks
    of fewer than 16 numbers do not exist: so few bytes are 4 bits of a product that is narrower than its block."""
    shapes = [shape for entry in input_types[:2] for shape in entry.values()]
    if len(shapes) < 2 or len(shapes[1]) != 3 or not shapes[0]:
        return False
    return bool(shapes[1][2] >= SMALLEST_BLOCK and shapes[1][1] * shapes[1][2] >= shapes[0][-1])


def _first_precision(input_types: list[Any]) -> str | None:
    return next((_PRECISIONS.get(name) for entry in input_types[:1] for name in entry), None)
