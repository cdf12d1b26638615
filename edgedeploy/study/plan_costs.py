"""The table of a network's layers that plans are made from: times from the profiles of two measurements, losses from
simulated roundings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from edgedeploy.errors import Unsupported
from edgedeploy.evidence.layers import LayerTime, Profile, profile_of
from edgedeploy.records.measurement import Measurement
from edgedeploy.reference.roundings import Roundings
from edgedeploy.reference.sensitivity import Sensitivity
from edgedeploy.search.plan.table import Border, Cost, Group, Noise, Table

PROFILED: Final = ("int8", "float32")
CONVERTING: Final = ("QuantizeLinear", "DequantizeLinear")
"""Operators of profiles that do nothing but change the precision of a tensor."""


def table_of(
    found: Roundings,
    sensitivity: Sensitivity,
    measured: Mapping[str, Measurement],
    *,
    ends_elements: int,
    metric: str = "",
) -> Table:
    """``measured`` has the model without a plan in float32 and int8; ``ends_elements`` are the elements of the model's
    inputs and outputs, where an int8 file converts; ``metric`` is what a loss is of, noise when left out.
    Raises ``Unsupported`` where no layer was profiled."""
    profiles = {precision: _scaled(measured[precision], measured["float32"]) for precision in PROFILED}
    return table_from(found, sensitivity, profiles, ends_elements, metric)


def table_from(
    found: Roundings,
    sensitivity: Sensitivity,
    profiles: Mapping[str, tuple[Profile, float]],
    ends_elements: int,
    metric: str = "",
) -> Table:
    """As :func:`table_of`, from profiles with what their times are multiplied with."""
    losses = sensitivity.metrics.get(metric) if metric else sensitivity.losses
    if losses is None:
        raise Unsupported(f"precision plans by {metric}", "it is undefined in every calibration case", "Leave it out")
    times = {precision: _by_layer(found, *profiles[precision]) for precision in PROFILED}
    group_of = {layer: group for group, layers in enumerate(found.groups) for layer in layers}
    groups = [
        Group(
            tuple(found.layers[layer].name for layer in layers),
            {
                precision: Cost(
                    sum(times[precision][layer] for layer in layers),
                    sum(found.layers[layer].bytes_in(precision) for layer in layers),
                )
                for precision in PROFILED
            },
        )
        for layers in found.groups
    ]
    noises = [
        Noise(place.tensor, loss, tuple((group, "int8") for group in dict.fromkeys(group_of[i] for i in place.layers)))
        for place, loss in zip(found.places, losses, strict=True)
    ]
    return Table(
        tuple(groups), tuple(noises), _borders(found, group_of, _converting_ns(*profiles["int8"], ends_elements))
    )


def _scaled(measurement: Measurement, base: Measurement) -> tuple[Profile, float]:
    """A profile, and what its times are multiplied with: a profiler slows layers down, and two measurements are of two
    sessions. Both are brought to the latency ratios, which were measured beside one and the same model."""
    profile = profile_of(measurement, "candidate")
    if not profile.layers or not profile.total_ns:
        found = profile.missing or "the profile has no times"
        raise Unsupported(f"layer times of {measurement.variant.label}", found, "Search without plans of a budget")
    ratios = [item.metrics.get("latency_ratio") for item in (measurement, base)]
    p50_ns = base.metrics.get("latency_p50_ns")
    if not p50_ns or not all(ratios):
        return profile, 1.0
    own, other = (float(ratio or 0.0) for ratio in ratios)
    return profile, p50_ns * own / other / profile.total_ns


def _by_layer(found: Roundings, profile: Profile, scale: float) -> list[float]:
    times = [0.0] * len(found.layers)
    for layer in profile.layers:
        owner = found.owners.get(layer.source) if layer.source else None
        if owner is not None:
            times[owner] += scale * layer.ns
    if not any(times):
        asked = "layer times for precision plans"
        raise Unsupported(asked, "the runtime's layers have other names than the reference's", "Search without budgets")
    return times


def _converting_ns(profile: Profile, scale: float, elements: int) -> float:
    """Nanoseconds to convert one element: an int8 file converts its inputs and outputs. 0 where a runtime does not say."""
    spent_ns = sum(layer.ns for layer in profile.layers if _converts(layer))
    return scale * spent_ns / elements if elements else 0.0


def _converts(layer: LayerTime) -> bool:
    return layer.operator in CONVERTING


def _borders(found: Roundings, group_of: Mapping[int, int], ns: float) -> tuple[Border, ...]:
    spent: dict[tuple[int, int], float] = {}
    for writer, reader, elements in found.links:
        pair = (group_of[writer], group_of[reader])
        if pair[0] != pair[1] and ns:
            spent[pair] = spent.get(pair, 0.0) + ns * elements
    return tuple(Border(first, second, time_ns) for (first, second), time_ns in spent.items())


def gains_ns(table: Table) -> list[float]:
    """What int8 saves in each group by itself, against float32."""
    return [group.costs["float32"].time_ns - group.costs["int8"].time_ns for group in table.groups]


def own_losses(table: Table) -> list[float]:
    """What each group loses when it alone is int8."""
    return [sum(noise.loss for noise in table.noises if (group, "int8") in noise.members) for group in _places(table)]


def alone(table: Table) -> list[tuple[str, ...]]:
    """For each group the plan in which it alone is int8."""
    return [tuple("int8" if own == group else "float32" for own in _places(table)) for group in _places(table)]


def _places(table: Table) -> Sequence[int]:
    return range(len(table.groups))
