"""A stored measurement, held to the form of all that it holds: raw series are plain JSON, and files may hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.metrics import read
from edgedeploy.evidence.series import Run
from edgedeploy.records.forms import EnvironmentForm, PowerForm
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import SCENARIO_METRICS
from edgedeploy.runtime.wire.serde import from_json

_FAULTS: Final = (ArithmeticError, AttributeError, LookupError, MeasurementError, TypeError, ValueError)


@dataclass(frozen=True)
class _LayerForm:
    name: str
    source: str | None
    operator: str
    kernel: str
    device: str
    ns: int


@dataclass(frozen=True)
class _ProfileForm:
    layers: tuple[_LayerForm, ...] = ()
    missing: str | None = None


@dataclass(frozen=True)
class _SeriesForm:
    layers: Mapping[str, _ProfileForm | None]
    scenarios: Mapping[str, Mapping[str, Any]]
    environment: EnvironmentForm


def measurement_of(data: Mapping[str, Any]) -> Measurement:
    """As :meth:`Measurement.from_json`, with the environment, the layers and the scenarios held to their form too. Raises
    what that raises."""
    item = Measurement.from_json(data)
    series = {name: getattr(item, name) for name in ("layers", "scenarios", "environment")}
    power = from_json(_SeriesForm, series, kept=True).environment.energy
    if power is not None and "missing" not in power:
        from_json(PowerForm, power, kept=True)
    for name in item.scenarios:
        _check_scenario(item, name)
    return item


def _check_scenario(item: Measurement, name: str) -> None:
    """Whether every metric that was made of a scenario can be made of it again."""
    run = Run.of(item)
    try:
        for row in SCENARIO_METRICS.get(name, {}).values():
            if row.name in item.metrics:
                read(row, run)
        if name == "sustained":
            _windows(item.scenarios[name]["windows"])
    except _FAULTS as exc:
        found = str(exc) or type(exc).__name__
        raise ValueError(
            f"scenarios.{name} is not of its form ({type(exc).__name__}: {found.splitlines()[0]})"
        ) from None


@dataclass(frozen=True)
class _WindowForm:
    start_ns: int
    p50_ns: float


def _windows(data: Any) -> None:
    for window in data:
        from_json(_WindowForm, window, kept=True)
