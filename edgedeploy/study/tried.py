"""What a search of a study chooses from: how many variants there are, of which kinds, and what is left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgedeploy.records.variant import BY_TIME, Variant
from edgedeploy.search.candidates import Candidates
from edgedeploy.search.knowledge import NO_KNOWLEDGE
from edgedeploy.search.proposals import seeds_of
from edgedeploy.search.space import Space
from edgedeploy.search.warmstart import WarmStart
from edgedeploy.spec.space import plan_goal
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.preflight import Ready


@dataclass(frozen=True)
class Kind:
    """Variants of one target and precision: the ``widths`` that they have, and how many architectures, each time with
    something else left out counted for itself."""

    target: str
    precision: str
    widths: tuple[float, ...]
    architectures: int
    variants: int

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "precision": self.precision,
            "widths": list(self.widths),
            "architectures": self.architectures,
            "variants": self.variants,
        }


@dataclass(frozen=True)
class Tried:
    """``combinations`` of parameters stand for ``variants``, each once; ``whole`` is False where there are too many to be
    counted, and ``kinds`` are those of a sample then. ``budget`` of them are evaluated at most, ``done`` are already, and
    ``seeds`` come first: baselines, the user's own points, and what is good for most models. ``models`` have to be made in
    training for all of them; ``left_out`` says what is not tried, and why, ``later`` what is tried but made first of what
    the search has measured."""

    combinations: int
    variants: int
    whole: bool
    budget: int
    done: int
    seeds: tuple[str, ...]
    kinds: tuple[Kind, ...]
    models: tuple[str, ...]
    left_out: tuple[str, ...]
    later: tuple[str, ...]

    @property
    def to_do(self) -> int:
        """Variants that are still to be evaluated, at most."""
        wanted = min(self.budget, self.variants) if self.whole else self.budget
        return max(0, wanted - self.done)

    def as_json(self) -> dict[str, Any]:
        return {
            "combinations": self.combinations,
            "variants": self.variants if self.whole else None,
            "budget": self.budget,
            "done": self.done,
            "seeds": list(self.seeds),
            "kinds": [kind.as_json() for kind in self.kinds],
            "left_out": list(self.left_out),
            "later": list(self.later),
        }


def tried_by(
    spec: StudySpec, ready: Ready, trials: int, done: Iterable[Variant], warm: WarmStart | None = None
) -> Tried:
    """``trials`` may be others than the study file's; ``done`` have an outcome; ``warm`` is what another study leaves of the
    first ones."""
    space = ready.space
    found = Candidates(space, NO_KNOWLEDGE, spec.study.seed)
    merged = tuple(_merged(space, found))
    forbidden = len(found)
    for target in space.targets:
        found.add(space.baseline(target))  # it is measured whatever [[never]] says
    forbidden = len(found) - forbidden
    outcomes = {variant.digest for variant in done if not variant.recovered}
    untouched = {space.baseline_variant(target).model_digest for target in space.targets}
    models = dict.fromkeys(v.model_digest for v in found.variants if v.digest not in outcomes)
    first = [params for params in seeds_of(space) if warm is None or warm.begins_with(params)]
    seeds = dict.fromkeys(space.variant(params).label for params in first)
    return Tried(
        space.size(),
        len(found),
        found.whole,
        trials,
        len(outcomes),
        tuple(seeds),
        _kinds(found.variants),
        tuple(digest for digest in models if digest not in untouched),
        (*ready.left_out, *_pointless(space), *merged, *_forbidden(space, found, forbidden)),
        tuple(_made_later(spec)),
    )


def _kinds(variants: Iterable[Variant]) -> tuple[Kind, ...]:
    listed = list(variants)
    counts = Counter((item.target, _precision(item)) for item in listed)
    of: dict[tuple[str, str], list[Variant]] = {}
    for item in listed:
        of.setdefault((item.target, _precision(item)), []).append(item)
    return tuple(
        Kind(
            *key,
            tuple(sorted({item.width for item in of[key]}, reverse=True)),
            len({(item.arch, item.shrink) for item in of[key]}),
            count,
        )
        for key, count in counts.items()
    )


def _precision(variant: Variant) -> str:
    mixed = " mixed" if variant.plan.rules else ""
    return f"{variant.precision}{mixed}{' ' + variant.training if variant.training else ''}"


def _pointless(space: Space) -> Iterable[str]:
    for condition in space.only:
        yield f"{condition.parameter} has the baseline's value except {condition.text} ([[only]])"


def _merged(space: Space, found: Candidates) -> Iterable[str]:
    allowed = sum(1 for params in space.combinations() if space.allows(params)) if found.whole else 0
    if allowed > len(found):
        reasons = "a precision, plan or setting that a target lacks or that changes nothing is counted once"
        yield f"{allowed - len(found)} of {space.size()} combinations are variants that others are already: {reasons}"


def _forbidden(space: Space, found: Candidates, baselines: int) -> Iterable[str]:
    if not space.never:
        return
    if not found.whole:
        yield f"what [[never]] forbids ({len(space.never)} rules)"
        return
    count = sum(1 for params in space.combinations() if not space.allows(params))
    kept = f"; {baselines} baselines are measured all the same" if baselines else ""
    yield f"{count} of {space.size()} combinations are forbidden by [[never]]{kept}"


def _made_later(spec: StudySpec) -> Iterable[str]:
    if BY_TIME in spec.space.get("allocation", ()):
        yield "widths by time follow the layer times of the baseline: it is measured before any of them is made"
    budgets = [str(name) for name in spec.space.get("plan", ()) if plan_goal(name) is not None]
    if budgets:
        yield f"plans of a budget ({', '.join(budgets)}) count once each: they are made when the first variants are measured"
