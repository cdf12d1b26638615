"""Takes the layer times of a study, once, from the profile of a baseline that it has measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from edgedeploy.compress.channels import layer_costs
from edgedeploy.compress.shaped import one_case
from edgedeploy.errors import DataError, Unsupported
from edgedeploy.evidence.layers import SIDES, Profile, profile_of
from edgedeploy.interfaces.task import Task
from edgedeploy.records.layer_times import LayerTimes, TimedLayer
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.variant import BY_TIME, Variant
from edgedeploy.reference.calling import plain_model
from edgedeploy.reference.export import Reference
from edgedeploy.reference.modules import modules_of
from edgedeploy.reference.weights import numbers
from edgedeploy.study.layer_times import AGAIN, kept_times
from edgedeploy.study.layout import LAYER_TIMES
from edgedeploy.study.store import Store

_OTHERWISE: Final = (
    'Search allocation = ["compute"], or put a target first whose runtime tells layer times on this board '
    "(onnxruntime, openvino and litert do)"
)


class TimesTaker:
    """Takes the layer times of a study from what it has measured. ``model`` and ``reference`` give the baseline's network
    and its ONNX file."""

    def __init__(
        self, task: Task, store: Store, model: Callable[[], Any], reference: Callable[[Variant], Reference]
    ) -> None:
        self._task, self._store = task, store
        self._model, self._reference = model, reference

    def of(self, variant: Variant) -> LayerTimes | None:
        """What the variant's widths are chosen by; None where that is no time. Raises ``Unsupported`` where the study has no
        times, ``DataError`` where it has others than the variant names."""
        if variant.allocation != BY_TIME:
            return None
        if not variant.layer_times:
            self.take()  # says why there are none
            found = "the baselines were not measured yet when they were looked for"
            raise Unsupported("widths by time", found, "Resume the study")
        kept = kept_times(self._store.root)
        if kept is None or kept.digest != variant.layer_times:
            found = f"its times are {kept.digest if kept else 'gone'}, and {variant.label} has {variant.layer_times}"
            raise DataError(f"study file {self._store.root / LAYER_TIMES}", found, AGAIN)
        return kept

    def take(self) -> LayerTimes:
        """Those of the first target whose measured baseline tells any. Raises ``Unsupported`` with the reason of each
        target that does not."""
        reasons = []
        for data in self._store.study()["baselines"]:
            variant = Variant.from_json(data)
            measured = self._store.measurement(variant.digest)
            if measured is None:
                reasons.append(f"the baseline of {variant.target} has no measurement")
                continue
            sides = [profile_of(measured, side) for side in SIDES[: 2 if _is_both_sides(measured) else 1]]
            profiles = [profile for profile in sides if profile.total_ns]
            if not profiles:
                reasons.append(f"{variant.target}: {sides[0].missing or 'its profile has no times'}")
                continue
            times = self._from(measured, profiles)
            if times is not None:
                return times
            reasons.append(f"{variant.target}: its runtime's layers have other names than the reference's")
        raise Unsupported("layer times for widths by time", "; ".join(reasons), _OTHERWISE)

    def _from(self, measured: Measurement, profiles: Sequence[Profile]) -> LayerTimes | None:
        """Of several processes that ran the artifact the least time of each layer: what else a machine does, and where a
        process has its memory, makes single layers several times as slow in one of them."""
        variant, model = measured.variant, plain_model(self._model())  # as it is pruned
        layers = layer_costs(model, one_case(self._task, variant.arch_kwargs), "compute")
        owners = modules_of(
            self._reference(variant).path,
            layers,
            lambda name: numbers(model.get_submodule(name).weight.detach().numpy()),
        )
        spent = [_by_module(profile, owners) for profile in profiles]
        least = {name: min((found[name] for found in spent if found.get(name)), default=0) for name in layers}
        timed = {name: TimedLayer(float(ns), layers[name].cost) for name, ns in least.items() if ns > 0}
        if not timed:
            return None
        elsewhere_ns = min(
            profile.total_ns - sum(found.values()) for profile, found in zip(profiles, spent, strict=True)
        )
        return LayerTimes(
            layers=timed,
            untimed=tuple(name for name in layers if name not in timed),
            elsewhere_ns=float(elsewhere_ns),
            target=variant.target,
            board=measured.board.name,
            provenance=measured.provenance,
            variant=variant.digest,
            artifact=measured.artifact.digest,
            created_utc=measured.created_utc,
        )


def _is_both_sides(measured: Measurement) -> bool:
    """Whether the baseline was measured beside itself, in two processes."""
    return measured.baseline_variant == measured.variant.digest


def _by_module(profile: Profile, owners: Mapping[str, str]) -> dict[str, int]:
    spent: dict[str, int] = {}
    for row in profile.layers:
        owner = owners.get(row.source) if row.source else None
        if owner is not None:
            spent[owner] = spent.get(owner, 0) + row.ns
    return spent
