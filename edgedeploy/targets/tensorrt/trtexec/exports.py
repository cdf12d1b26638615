"""Reads the JSON files that ``trtexec`` exports: times, profile, layers, outputs. Statistics use the times only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import MeasurementError, Unstable
from edgedeploy.files import parsed_value
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import QUERIES_FOR_PERCENTILE
from edgedeploy.runtime.sessions.tensorrt.layers import count_compute, kind_of, precision_of
from edgedeploy.targets.tensorrt.trtexec.log import MAX_COV_PERCENT

_NON_FINITE = re.compile(r"[:\[,]\s*-?(?:nan|inf)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Times:
    """Times of the queries after the warm-up, in their order. ``latency_ms`` adds the transfers to ``compute_ms``."""

    compute_ms: tuple[float, ...]
    latency_ms: tuple[float, ...]

    @property
    def cov_percent(self) -> float:
        values = np.array(self.compute_ms)
        return float(values.std() / values.mean() * 100)

    @property
    def median_ms(self) -> float:
        return float(np.median(self.compute_ms))

    def percentile_ms(self, share: int) -> float | None:
        """None when there are too few queries to state it."""
        if len(self.compute_ms) < QUERIES_FOR_PERCENTILE[share]:
            return None
        return float(np.percentile(self.compute_ms, share, method="higher"))

    def require_stable(self) -> None:
        """Raises ``Unstable``."""
        if not self.cov_percent <= MAX_COV_PERCENT:
            raise Unstable(
                f"GPU times that vary by at most {MAX_COV_PERCENT:g} %",
                f"coefficient of variation {self.cov_percent:.2f} % over {len(self.compute_ms)} queries",
                "Lock the clocks (jetson_clocks), let the board cool, end other work",
            )


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine. ``median_ms`` is the average where the release prints no median (before 8.4)."""

    name: str
    kind: str
    precision: str | None
    median_ms: float | None
    share_percent: float | None


def read_times(text: str, *, warmup_ms: float) -> Times:
    """``--exportTimes``. Raises ``MeasurementError``.

    Older releases export the warm-up too. Queries that began to compute before ``warmup_ms`` are therefore left out;
    files of newer releases have none.
    """
    rows = _rows(text, "--exportTimes", ("startComputeMs", "endComputeMs", "computeMs", "latencyMs"))
    timed = [row for row in rows if row["startComputeMs"] >= warmup_ms]
    if not timed:
        raise MeasurementError(
            "times after the warm-up", f"all {len(rows)} queries began before {warmup_ms:g} ms", "Run it for longer"
        )
    for row in timed:
        spent = row["endComputeMs"] - row["startComputeMs"]
        step = 1e-5 * row["endComputeMs"] + 2e-3  # six digits are printed, so later times are coarser
        if not 0 < row["computeMs"] <= row["latencyMs"] * (1 + 1e-5) or abs(spent - row["computeMs"]) > step:
            raise MeasurementError("times that fit together", f"{row}", "The file is damaged: run it again")
    return Times(tuple(row["computeMs"] for row in timed), tuple(row["latencyMs"] for row in timed))


def read_profile(text: str) -> dict[str, tuple[float, float]]:
    """``--exportProfile``: layer to (median ms, share in percent). Raises ``MeasurementError``."""
    data = _parse(text, "--exportProfile")
    if not (isinstance(data, list) and data and isinstance(data[0], Mapping) and _positive(data[0].get("count"))):
        raise _wrong("--exportProfile", "it does not begin with a count of iterations")
    rows = [_profiled(row) for row in data[1:]]
    layers = {
        str(row.get("name")): (numbers.get("medianMs", numbers["averageMs"]), numbers["percentage"])
        for row, numbers in zip(data[1:], rows, strict=True)
    }
    total = sum(numbers["percentage"] for numbers in rows)
    if not layers or abs(total - 100) > 1:
        raise _wrong("--exportProfile", f"its shares add up to {total:g} %")
    return layers


def read_layers(text: str) -> tuple[EngineLayer, ...]:
    """``--exportLayerInfo`` of an engine that was built with detailed verbosity. Raises ``MeasurementError``."""
    data = _parse(text, "--exportLayerInfo")
    if not isinstance(data, Mapping) or not isinstance(data.get("Layers"), list):
        raise _wrong("--exportLayerInfo", "it has no list of layers")
    if not data["Layers"] or not all(isinstance(layer, Mapping) and "Name" in layer for layer in data["Layers"]):
        raise _wrong("--exportLayerInfo", "its layers are names only: build with detailed profiling verbosity")
    return tuple(_layer(layer) for layer in data["Layers"])


def join(layers: Sequence[EngineLayer], profile: Mapping[str, tuple[float, float]]) -> tuple[EngineLayer, ...]:
    """Layers with their times; a profiled layer that the engine does not list is kept with its time."""
    known = {layer.name for layer in layers}
    timed = [
        EngineLayer(layer.name, layer.kind, layer.precision, *profile.get(layer.name, (None, None))) for layer in layers
    ]
    return (*timed, *(EngineLayer(name, "", None, *times) for name, times in profile.items() if name not in known))


def executed(layers: Sequence[EngineLayer]) -> dict[str, int]:
    """Compute layers by the precision that the engine has for them."""
    return count_compute((layer.kind, layer.precision) for layer in layers)


def read_outputs(text: str, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """``--exportOutput`` as arrays of the given shapes and types. Raises ``MeasurementError``."""
    data = _parse(text, "--exportOutput")
    if not isinstance(data, list) or not all(isinstance(row, Mapping) for row in data):
        raise _wrong("--exportOutput", "it is no list of tensors")
    found = {str(row.get("name")): row for row in data}
    if set(found) != {spec.name for spec in specs}:
        raise _wrong("--exportOutput", f"it holds {', '.join(found) or 'nothing'}")
    return {spec.name: _tensor(found[spec.name], spec) for spec in specs}


def _tensor(row: Mapping[str, Any], spec: TensorSpec) -> Array:
    text, values = str(row.get("dimensions")), row.get("values")
    shape = tuple(int(part) for part in text.split("x")) if re.fullmatch(r"\d+(x\d+)*", text) else None
    if shape != spec.shape:
        raise _wrong("--exportOutput", f"{spec.name} is {text}, expected {spec.shape}")
    if not isinstance(values, list) or len(values) != math.prod(spec.shape):
        raise _wrong("--exportOutput", f"{spec.name} lacks values")
    if not all(isinstance(value, int | float) for value in values):
        raise _wrong("--exportOutput", f"{spec.name} has values that are no numbers")
    try:
        array: npt.NDArray[np.generic] = np.array(values, dtype=spec.dtype).reshape(spec.shape)
    except OverflowError:
        raise _wrong("--exportOutput", f"{spec.name} has values that are no {spec.dtype}") from None
    return array


def _layer(data: Mapping[str, Any]) -> EngineLayer:
    return EngineLayer(str(data["Name"]), kind_of(data), precision_of(data), None, None)


def _profiled(row: Any) -> dict[str, float]:
    """Releases from 8.5 on have a median too."""
    median = ("medianMs",) if isinstance(row, Mapping) and "medianMs" in row else ()
    return _numbers(row, "--exportProfile", ("averageMs", "percentage", *median))


def _rows(text: str, flag: str, names: Sequence[str]) -> list[dict[str, float]]:
    data = _parse(text, flag)
    if not isinstance(data, list) or not data:
        raise _wrong(flag, "it is no list of queries")
    return [_numbers(row, flag, names) for row in data]


def _numbers(row: Any, flag: str, names: Sequence[str]) -> dict[str, float]:
    if not isinstance(row, Mapping):
        raise _wrong(flag, f"an entry is {row!r}")
    for name in names:
        value = row.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise _wrong(flag, f"{name} is {value!r}")
    return {name: float(row[name]) for name in names}


def _positive(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _parse(text: str, flag: str) -> Any:
    if _NON_FINITE.search(text):
        raise _wrong(flag, "it holds NaN or Inf")
    try:
        return parsed_value(text.encode())
    except (ValueError, RecursionError) as exc:
        raise _wrong(flag, f"it is no JSON: {exc}") from exc


def _wrong(flag: str, found: str) -> MeasurementError:
    return MeasurementError(f"a file of trtexec {flag}", found, "Run it again; keep the file if it stays so")
