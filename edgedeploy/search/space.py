"""The space a study searches: flat parameters shared by all targets, and the finite set of variants they stand for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import optuna

from edgedeploy.records.canonical import NO_CHOICES, Choices, canonical
from edgedeploy.records.conditions import Condition
from edgedeploy.records.precision import AS_GIVEN
from edgedeploy.records.shrink import NO_SHRINK
from edgedeploy.records.storage import NO_STORAGE
from edgedeploy.records.variant import NO_CODEC, NO_PLAN, Scalar, Variant

ENUMERATION_LIMIT = 20_000

_MOST_KEPT: Final = 100_000

FIRST_IS_THE_BASELINES: Final = frozenset(
    ("calibration", "calibration_cases", "power_mode", "weight_bits", "quantizer", "allocation", "tile", "overlap")
)
"""Parameters of which a baseline has the first value."""


@dataclass(frozen=True)
class Space:
    """Parameters with their values; the first target is the reference, ``arch_defaults`` is the baseline's architecture.

    ``tries`` are the user's own points: parameters with a value each, the baseline's for all others. ``never`` are
    combinations that are not proposed, each from parameter to the values that it means; a baseline is measured all the same.
    ``only`` are conditions under which parameters matter, each after those of the parameters that it asks for: elsewhere a
    parameter has the baseline's value (:meth:`settled`).
    """

    targets: tuple[str, ...]
    parameters: Mapping[str, tuple[Scalar, ...]]
    arch_defaults: Mapping[str, Scalar]
    target_precisions: Mapping[str, tuple[str, ...]]
    default_threads: int
    choices: Choices = NO_CHOICES
    tries: tuple[Mapping[str, Scalar], ...] = ()
    never: tuple[Mapping[str, tuple[Scalar, ...]], ...] = ()
    only: tuple[Condition, ...] = ()

    def settled(self, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """``params`` with the baseline's values of the parameters that do not matter beside the others. Parameters that are
        not given count as the baseline's."""
        found = {name: _snap(value, self.parameters.get(name, ())) for name, value in params.items()}
        for condition in self.only:
            name = condition.parameter
            if name in found and not condition.holds({**self._usual, **found, **self._as_built(found)}):
                found[name] = self._baseline_value(name, self.parameters[name])
        return found

    @cached_property
    def _usual(self) -> dict[str, Scalar]:
        return {name: self._baseline_value(name, values) for name, values in self.parameters.items()}

    def _as_built(self, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The precision that the target builds in the place of one that it lacks."""
        if "precision" not in params:
            return {}
        offered = self.target_precisions[str(params["target"])]
        return {} if params["precision"] in offered else {"precision": AS_GIVEN if AS_GIVEN in offered else "float32"}

    def variant(self, params: Mapping[str, Scalar]) -> Variant:
        """The canonical variant of proposed parameters. Numbers are rounded to the listed values; without a power mode
        the first one of the list is used."""
        key = tuple((name, type(value), value) for name, value in params.items())
        found = self._variants.get(key)
        if found is None:
            if len(self._variants) >= _MOST_KEPT:
                self._variants.clear()
            found = self._variants[key] = self._canonical(params)
        return found

    @cached_property
    def _variants(self) -> dict[tuple[tuple[str, type, Scalar], ...], Variant]:
        """Variants that were asked for, because a search asks for the same ones again and again."""
        return {}

    def _canonical(self, params: Mapping[str, Scalar]) -> Variant:
        for name in ("power_mode", "tile", "overlap"):
            if name in self.parameters:
                params = {name: self.parameters[name][0], **params}
        if "threads" in self.parameters:  # which may not hold the default: a baseline has what is searched
            params = {"threads": self._baseline_value("threads", self.parameters["threads"]), **params}
        return canonical(
            self.settled(params),
            arch_defaults=self.arch_defaults,
            target_precisions=self.target_precisions,
            default_threads=self.default_threads,
            choices=self.choices,
        )

    def params_of(self, variant: Variant) -> dict[str, Scalar] | None:
        """Parameters whose canonical variant is ``variant``; None when the space has none, as for a baseline outside of
        it. Several values of a calibration, a quantizer or a plan can mean the same: they are tried until one gives the
        variant."""
        facts = {**variant.shrink.settings, "width": variant.width, **variant.arch_kwargs}
        if variant.shrink.student:  # which has no shares, whatever they are
            facts = {**variant.arch_kwargs, "student": variant.shrink.student}
        facts |= {"precision": variant.precision, "threads": variant.threads, "power_mode": variant.power_mode}
        facts |= {"instances": variant.instances, "image_codec": variant.image_codec or NO_CODEC}
        facts |= {} if variant.storage else {"storage": NO_STORAGE}
        facts |= {} if variant.recovery_epochs is None else {"recovery_epochs": variant.recovery_epochs}
        if variant.target not in self.targets or any(
            name in self.parameters and value not in self.parameters[name] for name, value in facts.items()
        ):
            return None
        tried = [(facts[name],) if name in facts else values for name, values in self.parameters.items()]
        for values in itertools.product(*tried):
            params: dict[str, Scalar] = {"target": variant.target, **dict(zip(self.parameters, values, strict=True))}
            if self.variant(params).digest == variant.digest:
                return self.settled(params)
        return None

    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """One Optuna distribution per parameter. Evenly spaced numbers keep their order, anything else is a choice."""
        found: dict[str, optuna.distributions.BaseDistribution] = {
            "target": optuna.distributions.CategoricalDistribution(self.targets)
        }
        for name, values in self.parameters.items():
            found[name] = _distribution(values)
        return found

    def baseline(self, target: str) -> dict[str, Scalar]:
        """Parameters of the untouched float model on one target, as far as they are searched at all."""
        params: dict[str, Scalar] = {"target": target}
        for name, values in self.parameters.items():
            params[name] = self._baseline_value(name, values)
        return params

    def _baseline_value(self, name: str, values: tuple[Scalar, ...]) -> Scalar:
        wanted: Scalar
        if name == "precision":
            wanted = "float32"
        elif name == "width":
            wanted = 1.0
        elif name == "threads":
            wanted = self.default_threads
        elif name in ("max_batch", "instances"):
            wanted = 1
        elif name == "storage":
            wanted = NO_STORAGE
        elif name == "plan":
            wanted = NO_PLAN
        elif name == "image_codec":
            wanted = NO_CODEC
        elif name == "training":
            wanted = "ptq"
        elif name == "recovery_epochs":
            wanted = min(values)
        elif name in FIRST_IS_THE_BASELINES:
            wanted = values[0]
        elif name not in self.arch_defaults:
            wanted = NO_SHRINK.settings[name]
        else:
            wanted = self.arch_defaults[name]
        return wanted if wanted in values else values[0]

    def baseline_variant(self, target: str) -> Variant:
        """The untouched float model, whether or not the space holds every one of its values."""
        return self.variant({"target": target})

    def known_good(self) -> list[dict[str, Scalar]]:
        """Points that are worth trying on any model before a search knows anything: int8, half the channels, both."""
        points: list[dict[str, Scalar]] = []
        for target in self.targets:
            start = self.baseline(target)
            int8 = {"precision": "int8"} if "int8" in self.parameters.get("precision", ()) else {}
            narrow = {"width": _nearest_to(0.5, self.parameters["width"])} if "width" in self.parameters else {}
            points += [{**start, **change} for change in (int8, {**int8, **narrow}) if change]
        return points

    def points_to_try(self) -> list[dict[str, Scalar]]:
        """The user's own points: of the reference target where they name none."""
        return [{**self.baseline(str(point.get("target", self.targets[0]))), **point} for point in self.tries]

    def allows(self, params: Mapping[str, Scalar]) -> bool:
        """Whether no combination in ``never`` has these parameters, nor what they come to on their target."""
        if not self.never:
            return True
        variant = self.variant(params)
        facts = {**self.settled(params), **variant.arch_kwargs, "precision": variant.precision, "width": variant.width}
        facts |= {"threads": variant.threads}
        return not any(all(facts.get(name) in values for name, values in rule.items()) for rule in self.never)

    def offers(self, variant: Variant) -> bool:
        """Whether it is one that may be proposed."""
        params = self.params_of(variant)
        return params is not None and self.allows(params)

    def neighbours(self, params: Mapping[str, Scalar]) -> Iterator[dict[str, Scalar]]:
        """All combinations that differ from ``params`` in one parameter, and in those that matter beside it alone."""
        values: dict[str, Sequence[Scalar]] = {"target": self.targets, **self.parameters}
        for name, listed in values.items():
            for value in listed:
                near = self.settled({**params, name: value}) if value != params[name] else params
                if near[name] != params[name]:
                    yield dict(near)

    def size(self) -> int:
        """Number of parameter combinations, before canonicalisation and conditions."""
        return len(self.targets) * math.prod(len(values) for values in self.parameters.values())

    def combinations(self) -> Iterator[dict[str, Scalar]]:
        """All that differ where it matters."""
        names = ["target", *self.parameters]
        for values in itertools.product(self.targets, *self.parameters.values()):
            params: dict[str, Scalar] = dict(zip(names, values, strict=True))
            if not self.only or self.settled(params) == params:
                yield params

    def untried(self, tried: Collection[str], rng: np.random.Generator) -> dict[str, Scalar] | None:
        """Parameters of a random variant whose digest is not in ``tried``; None when there is none left.

        Small spaces are enumerated; in a large one a limited number of random points is tried.
        """
        if self.size() <= ENUMERATION_LIMIT:
            left = [params for params in self.combinations() if self._is_new(params, tried)]
            return left[int(rng.integers(len(left)))] if left else None
        for _ in range(ENUMERATION_LIMIT):
            params: dict[str, Scalar] = {"target": self.targets[int(rng.integers(len(self.targets)))]}
            params.update({name: values[int(rng.integers(len(values)))] for name, values in self.parameters.items()})
            if self._is_new(params, tried):
                return self.settled(params)
        return None

    def _is_new(self, params: Mapping[str, Scalar], tried: Collection[str]) -> bool:
        return self.variant(params).digest not in tried and self.allows(params)


def _distribution(values: tuple[Scalar, ...]) -> optuna.distributions.BaseDistribution:
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == len(values) and len(values) > 2:
        ordered = sorted(numbers)
        steps = np.diff(ordered)
        if np.allclose(steps, steps[0]):
            if all(isinstance(value, int) for value in ordered):
                return optuna.distributions.IntDistribution(int(ordered[0]), int(ordered[-1]), step=int(steps[0]))
            step = round(float(steps[0]), 9)
            return optuna.distributions.FloatDistribution(float(ordered[0]), float(ordered[-1]), step=step)
    return optuna.distributions.CategoricalDistribution(values)


def _snap(value: Scalar, listed: Sequence[Scalar]) -> Scalar:
    """The listed value nearest to ``value``: stepped floats come back with rounding errors (0.30000000000000004)."""
    if isinstance(value, float):
        return next((item for item in listed if isinstance(item, (int, float)) and abs(item - value) < 1e-9), value)
    return value


def _nearest_to(wanted: float, values: Sequence[Scalar]) -> Scalar:
    return min(values, key=lambda value: abs(float(value) - wanted))
