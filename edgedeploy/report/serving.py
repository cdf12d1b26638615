"""The report's section on a server: what each load of users came to, and what service times alone predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgedeploy.evidence.quantities import quantity
from edgedeploy.evidence.serving import predicted_latency_ns, predicted_users
from edgedeploy.evidence.statistics import Floats, nearest_rank
from edgedeploy.records.metrics import QUERIES_FOR_PERCENTILE
from edgedeploy.report.blocks import Block, Line, Section, Table, Text
from edgedeploy.report.data import ReportData
from edgedeploy.report.pictures import pick_and_reference
from edgedeploy.report.tables import line

HEADERS: Final = ("Users", "Answered", "Late", "Turned away", "p50", "p99", "p99, predicted", "Deadline held")
CAPTION: Final = (
    "Open loop: requests come when they like, whether the server is ready or not, and their times count from then on. A "
    "load holds when so few requests miss the deadline that, at 99 % confidence, the stated share keeps it; one that is "
    "lost ends early, so its times are of its beginning. A p99 is stated of 662 answers or more. Predictions are a "
    "simulation of the same queue with service times that the board measured apart from it. They are no measurement and "
    "decide nothing."
)


def serving_section(data: ReportData) -> Section | None:
    """Latency against load of the pick and the baseline; nothing for a study without the scenario."""
    blocks: list[Block] = []
    for item in pick_and_reference(data.front, data.measurements):
        if item is not None and "server" in item.scenarios:
            blocks += _blocks(item.variant.label, item.scenarios["server"])
    return Section("Many users: latency against load", CAPTION, blocks) if blocks else None


def _blocks(label: str, raw: Mapping[str, Any]) -> list[Block]:
    lines = [load_line(raw, level) for level in curve(raw)]
    table = Table(HEADERS, lines, numbers=range(len(HEADERS) - 1), look="narrow")
    within = quantity(raw["deadline_ns"], "deadline_ns", "ns")
    measured = (
        "The search did not end in its time." if raw["cut"] else f"Measured: {raw['users']} users within {within}."
    )
    text = f"{measured} Expected: {predicted_users(raw).text(raw['users'])}."
    return [Text(label, "heading"), Text(text), table]


def curve(raw: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The loads that were measured, the lightest first; of one that was tried twice, the later try."""
    found = {level["users"]: level for level in (*raw["levels"], *([raw["at"]] if raw["at"] else []))}
    return [found[users] for users in sorted(found)]


def load_line(raw: Mapping[str, Any], level: Mapping[str, Any]) -> Line:
    """A load's row under ``HEADERS``; ``raw`` is the scenario's series, ``level`` one of its loads."""
    latencies = np.sort(np.asarray(level["latencies_ns"], dtype=np.float64))
    expected = predicted_latency_ns(raw, level["users"], 99)
    return line(
        str(level["users"]),
        f"{latencies.size} of {level['sent']}",
        str(level["late"]),
        str(len(level["shed"])),
        *(_time(_percentile(latencies, percent)) for percent in (50.0, 99.0)),
        _time(expected),
        "yes" if level["held"] else "no",
    )


def _percentile(latencies_ns: Floats, percent: float) -> float | None:
    """Nearest rank of sorted times in ns; None of fewer than LoadGen's early stopping asks for, as for a metric."""
    enough = latencies_ns.size >= QUERIES_FOR_PERCENTILE[percent]
    return nearest_rank(latencies_ns, percent) if enough else None


def _time(value_ns: float | None) -> str:
    return "" if value_ns is None else quantity(value_ns, "latency_ns", "ns")
