"""How many users a server can have, predicted from service times alone: what stands beside the measured answer.

The queue of ``runtime/scenarios/queueing.py`` is simulated with the requests that the board got and with the service times
that it measured apart from any queue. The result is a prediction (provenance ``predicted``): it is said beside the measured
number, is no metric, and never stands on a front.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgedeploy.evidence.statistics import nearest_rank
from edgedeploy.runtime.scenarios.queueing import Load, Rules, Services

STARTS: Final = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Shares of the series of service times at which a simulation begins to draw. How much the answers differ shows how far
the order of the service times decides."""


@dataclass(frozen=True)
class Predicted:
    """``users`` is the median of the simulations' answers, ``least`` and ``most`` are the smallest and the largest."""

    users: int
    least: int
    most: int
    provenance: str = "predicted"

    def text(self, measured: int) -> str:
        """For people: the prediction beside what was measured."""
        spread = f" ({self.least} to {self.most})" if self.least < self.most else ""
        off = (
            f", {abs(self.users / measured - 1):.0%} {'above' if self.users > measured else 'below'}"
            if measured
            else ""
        )
        return f"{self.users} users{spread}{off} ({self.provenance} from service times)"


def load_of(raw: Mapping[str, Any]) -> Load:
    """What the board was asked, from the series that it sent."""
    rules = Rules(**raw["rules"])
    return Load(raw["gaps"], raw["every_ns"], raw["deadline_ns"], raw["percent"], rules)


def services_of(raw: Mapping[str, Any], start: float) -> Services:
    """The service times that the board measured apart from any queue. Series of releases before those after a rest were kept
    apart have no ``rested``."""
    cells, rested = (
        {(cell["batch"], cell["busy"]): cell["ns"] for cell in raw.get(part, ())} for part in ("services", "rested")
    )
    return Services(cells, raw["wakes_ns"], start, rested)


def predicted_users(raw: Mapping[str, Any]) -> Predicted:
    """The most users within the deadline, by simulation of the server that ``raw`` is the series of."""
    load, first = load_of(raw), raw["users"] or max((level["users"] for level in raw["levels"]), default=1)
    found = [load.predicted_users(lambda at: services_of(raw, at), first, raw["most"], start) for start in STARTS]
    return Predicted(int(statistics.median(found)), min(found), max(found))


def predicted_latency_ns(raw: Mapping[str, Any], users: int, percent: float) -> float | None:
    """A percentile (nearest rank) of the simulated latencies of that load; None when no request is answered."""
    load = load_of(raw)
    found = sorted(
        latency
        for start in STARTS
        for latency in load.predicted(users, services_of(raw, start), to_the_end=True).latencies_ns
    )
    return nearest_rank(np.array(found, dtype=np.float64), percent) if found else None
