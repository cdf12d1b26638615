"""Whether a checkpoint may be released to all sites: a pure function of what they answered.

Every site has to show its own margin on its own board. Nothing is averaged: the mean over sites is printed beside, because
it hides a site that fails. With every site required, no correction for several sites is needed (an intersection-union
test: the chance of a wrong release is at most that of the one site that fails); for several candidates at a site its own
study corrects (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from edgedeploy.evidence.noninferiority import MIN_UNITS
from edgedeploy.federated.messages import Answer, CellSaid, EndpointSaid
from edgedeploy.records.variant import Scalar

Step = Literal["measure", "confirm", "done"]
Outcome = Literal["released", "refused", "undecided"]


@dataclass(frozen=True)
class SiteState:
    """What is known of one site: ``answers`` by number of request, ``margin`` as the coordinator states it for
    ``metric``."""

    name: str
    metric: str
    margin: float
    answers: tuple[Answer, ...]

    @property
    def measured(self) -> Answer | None:
        """The latest answer with numbers."""
        return next((one for one in reversed(self.answers) if one.kind != "failed"), None)

    @property
    def confirmed(self) -> Answer | None:
        """The confirmation of what is chosen: one that more measurements followed is of something else."""
        return self.measured if self.measured is not None and self.measured.kind == "confirmed" else None

    @property
    def failed(self) -> Answer | None:
        """The last answer, where it is a failure."""
        return self.answers[-1] if self.answers and self.answers[-1].kind == "failed" else None

    @property
    def tried(self) -> int:
        return len(self.measured.cells) if self.measured else 0

    @property
    def chosen(self) -> CellSaid | None:
        """The site's own pick, where its numbers show it by the site's margin and by the coordinator's."""
        found = self.measured
        cell = found.cell(found.pick) if found is not None and found.pick is not None else None
        return cell if cell is not None and self.why_not(cell) == "" else None

    def why_not(self, cell: CellSaid) -> str:
        """What keeps the cell from being released, in words; empty for nothing."""
        if cell.word == "failed":
            return f"no number ({cell.failure})"
        if cell.word == "no verdict":
            return f"no verdict: with {cell.cases} cases there are too few cases to bound a loss, or too few groups of them"
        if problem := self.other_margin(cell.endpoints):
            return problem
        return "" if cell.shown else _not_shown(cell)

    def other_margin(self, endpoints: Sequence[EndpointSaid]) -> str:
        """That the site judged by a wider margin than was agreed, or not by this metric; empty where it did."""
        item = _endpoint(endpoints, self.metric)
        if item is None:
            return f"the site has no verdict on {self.metric}" if endpoints else ""
        if item.margin > self.margin:
            return f"judged by a margin of {item.margin:g}, wider than the {self.margin:g} that was agreed"
        return ""


def _endpoint(endpoints: Sequence[EndpointSaid], metric: str) -> EndpointSaid | None:
    return next((one for one in endpoints if one.metric == metric), None)


def endpoint_of(cell: CellSaid, metric: str) -> EndpointSaid | None:
    """What the site says of ``metric``, among the endpoints that it judged."""
    return _endpoint(cell.endpoints, metric)


def _not_shown(cell: CellSaid) -> str:
    for item in cell.endpoints:
        if not item.within:
            return _missed(item, cell)
    if cell.lost_shown is False:
        worst = "" if cell.worst_loss is None else f" (the worst {cell.worst_loss:g})"
        return f"{cell.lost} of {cell.cases} cases lose too much{worst}"
    if not cell.endpoints and cell.cases < MIN_UNITS:
        return (
            f"{cell.cases} cases are too few cases to bound a loss, and so few that no number of them leaves the site"
        )
    return f"it is {cell.word}"


def _missed(item: EndpointSaid, cell: CellSaid) -> str:
    if item.lower is None:
        return f"{item.metric}: too few cases to bound a loss"
    text = f"{item.metric} may lose {-item.lower:.3g}, and {item.margin:g} is allowed"
    if item.upper is not None and item.upper < -item.margin:
        return f"{text}: it is worse (loses {-item.gain:.3g})"
    more = (
        f"; about {cell.cases_wanted} cases would show it if mean loss and spread stay as seen"
        if cell.cases_wanted
        else ""
    )
    return f"{text}: not shown{more}"


def next_step(state: SiteState, candidates: int) -> tuple[Step, int] | None:
    """What to ask the site for next, and how many candidates that covers: the next candidate until one is shown. None:
    there is nothing left to ask before all sites are ready."""
    if state.failed is not None:
        return None
    if state.measured is None:
        return "measure", 1
    if state.chosen is not None or state.confirmed is not None:
        return None
    return ("measure", state.tried + 1) if state.tried < candidates else None


@dataclass(frozen=True)
class Mean:
    """A candidate over the sites that measured it, each counting alike. ``gain`` is against the sites' baselines."""

    candidate: int
    sites: int
    accuracy: float
    gain: float
    within: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "candidate": self.candidate,
            "sites": self.sites,
            "accuracy": self.accuracy,
            "gain": self.gain,
            "within_margin": self.within,
        }


@dataclass(frozen=True)
class Release:
    """The decision. ``failing`` maps a site to why nothing may be shipped to it, ``broken`` a site that could not do what it
    was asked, which decides nothing; ``chosen`` is each site's candidate, ``mended`` maps a site to the candidates that
    failed there before another was shown; ``means`` are what a mean over sites would have said."""

    outcome: Outcome
    failing: Mapping[str, str]
    broken: Mapping[str, str]
    chosen: Mapping[str, int]
    mended: Mapping[str, tuple[int, ...]]
    means: tuple[Mean, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "failing": dict(self.failing),
            "broken": dict(self.broken),
            "chosen": dict(self.chosen),
            "mended": {name: list(numbers) for name, numbers in self.mended.items()},
            "means_over_sites": [item.as_json() for item in self.means],
        }


def decide(states: Sequence[SiteState], candidates: int) -> Release:
    """The decision over all sites' answers. ``undecided`` while a site has something left to try or to answer, so that a
    refusal names every site that fails."""
    failing = {state.name: why for state in states if (why := _failing(state, candidates))}
    broken = {state.name: state.failed.failure for state in states if state.failed is not None}
    open_ = [state for state in states if state.name not in failing and (state.chosen is None or state.name in broken)]
    confirmed = all(state.confirmed is not None for state in states)
    outcome: Outcome = "undecided" if open_ else "refused" if failing else "released" if confirmed else "undecided"
    chosen = {state.name: state.chosen.candidate for state in states if state.chosen}
    mended = {name: tried for name, number in chosen.items() if (tried := _before(states, name, number))}
    means = tuple(found for number in range(candidates) if (found := _mean(states, number)) is not None)
    return Release(outcome, failing, broken, chosen, mended, means)


def _before(states: Sequence[SiteState], name: str, chosen: int) -> tuple[int, ...]:
    """Candidates that the site had to leave for the one it has."""
    cells = next(state.measured.cells for state in states if state.name == name and state.measured)
    return tuple(cell.candidate for cell in cells if cell.candidate < chosen)


def _failing(state: SiteState, candidates: int) -> str:
    """Why nothing can be shipped to the site, as far as it is known; empty for nothing."""
    if state.failed is not None or state.measured is None:
        return ""
    if state.chosen is None and state.confirmed is not None:
        return "its confirmation names no candidate that is shown"
    if state.chosen is None:
        last = state.measured.cells[-1]
        why = f"none of {candidates} candidates is shown; the last one: {state.why_not(last) or 'the site picks none'}"
        return "" if state.tried < candidates else why
    return _not_confirmed(state) if state.confirmed is not None else ""


def _not_confirmed(state: SiteState) -> str:
    said = state.confirmed.confirmed if state.confirmed else None
    if said is None or said.outcome != "confirmed":
        return f"the pick is {said.outcome if said else 'not confirmed'} on the confirmation cases"
    if problem := state.other_margin(said.endpoints):
        return problem
    kept = said.cases > 0 and bool(said.endpoints) and all(item.within for item in said.endpoints)
    return "" if kept else "the numbers of the confirmation do not show the margin"


def _mean(states: Sequence[SiteState], candidate: int) -> Mean | None:
    """None where not every site measured the candidate with a number."""
    cells = [state.measured.cell(candidate) if state.measured else None for state in states]
    found = [cell for cell in cells if cell is not None and cell.accuracy is not None]
    known = [(cell, item) for cell in found if (item := endpoint_of(cell, states[0].metric)) is not None]
    if not known or len(known) < len(states):
        return None
    gain = fmean(item.gain for _, item in known)
    accuracy = fmean(cell.accuracy for cell, _ in known if cell.accuracy is not None)
    return Mean(candidate, len(known), accuracy, gain, gain >= -max(state.margin for state in states))


def label(point: Mapping[str, Scalar]) -> str:
    """A candidate for people."""
    bits = f"{point['weight_bits']}-bit weights" if "weight_bits" in point else ""
    rest = [
        f"{name} {value}" for name, value in sorted(point.items()) if name not in ("target", "precision", "weight_bits")
    ]
    return " ".join(filter(None, [str(point["target"]), str(point["precision"]), bits, *rest]))
