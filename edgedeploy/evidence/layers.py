"""Where the layers of a variant ran and how long they took, beside the baseline's.

From a profile of its own that was taken after the timing: profilers slow a runtime down, so these times say which layers
cost most, and never what an inference takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from edgedeploy.records.measurement import Measurement
from edgedeploy.records.units import human


@dataclass(frozen=True)
class LayerTime:
    """One layer as its runtime ran it. ``source`` is the layer of the ONNX reference that it computes; None for what the
    runtime added, such as a change of layout."""

    name: str
    source: str | None
    operator: str
    kernel: str
    device: str
    ns: int

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Profile:
    """What one side of a run did layer by layer, in the order it ran; or in ``missing`` why that is not known."""

    layers: tuple[LayerTime, ...]
    missing: str | None = None

    @property
    def placement(self) -> dict[str, int]:
        """Layers by the device or provider that ran them, most first."""
        devices = [layer.device for layer in self.layers]
        return dict(
            sorted(((name, devices.count(name)) for name in set(devices)), key=lambda item: (-item[1], item[0]))
        )

    @property
    def partitions(self) -> int:
        """Stretches of layers on one device: each border between two is a hand-over."""
        return sum(1 for _ in groupby(layer.device for layer in self.layers))

    @property
    def total_ns(self) -> int:
        return sum(layer.ns for layer in self.layers)

    def placement_text(self) -> str:
        """``CPU 12; 1 partition``, or why it is not available."""
        if self.missing is not None:
            return f"not available, because {self.missing}"
        places = ", ".join(f"{device} {count}" for device, count in self.placement.items())
        return f"{places}; {self.partitions} partition{'' if self.partitions == 1 else 's'}"

    def as_json(self) -> dict[str, Any]:
        return {
            "placement": self.placement,
            "partitions": self.partitions,
            "missing": self.missing,
            "layers": [layer.as_json() for layer in self.layers],
        }


@dataclass(frozen=True)
class Beside:
    """One layer of the reference on both sides; the time of a side that has no such layer is None. ``place`` says by which
    kernel and where the candidate ran it, or the baseline where the candidate does not have it."""

    layer: str
    operator: str
    place: str
    ours_ns: int | None
    theirs_ns: int | None

    def times(self) -> list[str]:
        """Both times for people, a dash for none."""
        return [time_text(ns) for ns in (self.ours_ns, self.theirs_ns)]

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


SIDES: Final = ("candidate", "baseline")


def profile_of(measurement: Measurement, side: str) -> Profile:
    """``side`` is one of :data:`SIDES`."""
    found = measurement.layers.get(side)
    if not isinstance(found, Mapping):
        return Profile((), "no layers were profiled in this run")
    if "layers" not in found:
        return Profile((), str(found.get("missing", "the board gave no reason")))
    names = ("name", "source", "operator", "kernel", "device", "ns")
    return Profile(tuple(LayerTime(**{name: layer[name] for name in names}) for layer in found["layers"]))


def beside(ours: Profile, theirs: Profile) -> tuple[Beside, ...]:
    """Both sides by the layer of the reference, the slowest first. What a runtime added stands under its own name, for its
    side alone; layers that compute the same source layer together are summed."""
    mine, other = _by_source(ours.layers, "added"), _by_source(theirs.layers, "added by the baseline's runtime")
    rows = []
    for key in dict.fromkeys([*mine, *other]):
        layers = mine.get(key) or other[key]
        main = max(layers, key=lambda layer: layer.ns)
        times = [sum(layer.ns for layer in side[key]) if key in side else None for side in (mine, other)]
        rows.append(Beside(key, main.operator, f"{main.kernel} on {main.device}", times[0], times[1]))
    return tuple(sorted(rows, key=lambda row: (-(row.ours_ns or 0), -(row.theirs_ns or 0), row.layer)))


def _by_source(layers: Sequence[LayerTime], added: str) -> dict[str, list[LayerTime]]:
    groups: dict[str, list[LayerTime]] = {}
    for layer in layers:
        groups.setdefault(layer.source or f"{layer.name} ({added})", []).append(layer)
    return groups


def held_against(profile: Profile, p50_ns: float | None) -> str:
    """The sum of the layers beside the median of the timed inferences, and what the difference is; a sentence. Empty where
    there is nothing to compare."""
    if not profile.layers or not p50_ns:
        return ""
    total_ns, share = profile.total_ns, abs(profile.total_ns - p50_ns) / p50_ns
    said = (
        f"The layers add up to {human(total_ns, 'ns')} in the profile; an inference takes {human(p50_ns, 'ns')} (p50)."
    )
    if total_ns >= p50_ns:
        why = "is the profiler's own, which slows each layer, or layers that ran at the same time"
        return f"{said} The {human(total_ns - p50_ns, 'ns')} more ({share:.0%}) {why}."
    why = "passes outside the layers: copying inputs and outputs, dispatching, waiting for threads"
    return f"{said} The other {human(p50_ns - total_ns, 'ns')} ({share:.0%}) {why}."


def time_text(ns: int | None) -> str:
    """For people; a dash for none."""
    return "\N{EN DASH}" if ns is None else human(ns, "ns")
