"""OpenVINO on the CPU."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import from_exception
from edgedeploy.runtime.sessions.counting import count_layers

COMPUTE_LAYERS = (
    *("Convolution", "Deconvolution", "FullyConnected", "MatMul", "BinaryConvolution"),
    *("RNNSeq", "RNNCell", "ScaledDotProductAttention"),
)
"""The CPU plug-in's layer types that multiply and add; all others move or scale data."""

NO_LAYERS = ("Input", "Output", "Const", "Reorder", "Reshape")
"""What stands in the compiled graph beside its layers."""

_PRECISIONS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "u8": "int8", "i8": "int8", "f64": "float64"}
_PRECISIONS.update({"u4": "int4-weights", "i4": "int4-weights"})  # of weights; inputs may be rounded on the way


def import_runtime() -> None:
    """See :func:`edgedeploy.runtime.sessions.open.import_runtime`."""
    import openvino  # noqa: F401


def open_model(path: Path, settings: Mapping[str, str], threads: int) -> OpenVinoSession:
    """``settings`` are compile properties, by OpenVINO's own names."""
    return OpenVinoSession(path, settings, threads)


def compile_properties(settings: Mapping[str, str], threads: int) -> dict[str, str]:
    """The properties a model is compiled with.

    The precision hint is always given: without it, OpenVINO silently computes float32 models in bfloat16 on CPUs with
    bfloat16 instructions.
    """
    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
    }
    properties.update(settings)
    return properties


class OpenVinoSession:
    def __init__(self, path: Path, settings: Mapping[str, str], threads: int) -> None:
        import openvino

        core = openvino.Core()
        self._path, self._properties = path, compile_properties(settings, threads)
        self._compiled = core.compile_model(str(path), "CPU", self._properties)
        self._request = self._compiled.create_infer_request()
        self.inputs = [port.get_any_name() for port in self._compiled.inputs]
        self.outputs = [port.get_any_name() for port in self._compiled.outputs]
        self.device = ",".join(str(name) for name in self._compiled.get_property("EXECUTION_DEVICES"))
        self.version = str(openvino.get_version()).split("-", maxsplit=1)[0]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        try:
            # Inputs are read in place; outputs are copied, because the request reuses its buffers.
            values = self._request.infer(dict(feeds), share_inputs=True).to_tuple()
        except Exception as exc:  # OpenVINO raises RuntimeError and TypeError for the same things by turns
            raise from_exception(exc, "run_failed") from exc
        return {name: values[index] for index, name in enumerate(self.outputs)}

    def executed(self) -> dict[str, int]:
        """Read from the compiled graph, which names the precision of every layer's kernel. Of a model without compute
        layers, every layer on floats counts."""
        layers: list[str] = []
        others: list[str] = []
        for layer in self._compiled.get_runtime_model().get_ordered_ops():
            info = layer.get_rt_info()
            kind = _text(info["layerType"]) if "layerType" in info else "Const"
            if kind in NO_LAYERS:
                continue
            found = _text(info["runtimePrecision"])
            precision = _PRECISIONS.get(found, found)
            if precision == "int8" and kind == "FullyConnected" and _reads_floats(layer):
                precision = "int8-weights"
            (layers if kind in COMPUTE_LAYERS else others).append(precision)
        return count_layers(layers, others)

    def profile(self, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See :class:`edgedeploy.runtime.sessions.open.Profiled`. Layers that were folded into others did not run."""
        import openvino

        compiled = openvino.Core().compile_model(str(self._path), "CPU", {**self._properties, "PERF_COUNT": "YES"})
        fused = {
            layer.get_friendly_name(): _text(layer.get_rt_info()["originalLayersNames"]).split(",")
            for layer in compiled.get_runtime_model().get_ordered_ops()
        }
        request = compiled.create_infer_request()
        found: dict[str, dict[str, Any]] = {}
        times_ns: dict[str, list[int]] = {}
        for values in feeds:
            request.infer(dict(values), share_inputs=True)
            for item in request.get_profiling_info():
                if item.status.name != "EXECUTED":  # the enumeration itself has moved between releases
                    continue
                found[item.node_name] = {
                    "name": item.node_name,
                    "operator": item.node_type,
                    "kernel": item.exec_type,
                    "device": self.device,
                    "sources": [name for name in fused.get(item.node_name, ()) if name],
                }
                times_ns.setdefault(item.node_name, []).append(round(item.real_time.total_seconds() * 1e9))
        return [
            {**layer, "ns": round(statistics.median(times_ns[name][1:] or times_ns[name]))}
            for name, layer in found.items()
        ]


def _reads_floats(layer: Any) -> bool:
    """Whether a layer's first input is floats, so that what is narrow of it is its weights. The kernel may round it on
    the way; the compiled graph does not say."""
    return str(layer.get_input_element_type(0).get_type_name()) in ("f32", "f16", "bf16")


def _text(value: Any) -> str:
    """A runtime attribute as text: an ``OVAny`` in some releases, a plain string in others."""
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)
