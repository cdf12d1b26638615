"""What roundings and whole plans lose on a study's calibration cases: simulated once, and kept beside the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedeploy.errors import Unsupported
from edgedeploy.files import read_json, write_json
from edgedeploy.reference.sensitivity import Lost, Sensitivity, Simulation, sensitivity_of
from edgedeploy.search.plan.refined import SHARES, Precisions, Refined, refined
from edgedeploy.search.plan.table import Table
from edgedeploy.study.reading import FAULTS


class PlanLosses:
    """Simulated losses in the file ``path``, under the ``key`` of all that they depend on. ``simulation`` is made when
    something is not known yet; ``show`` gets what is being done, and may raise to end it."""

    def __init__(
        self,
        path: Path,
        key: Mapping[str, str],
        places: int,
        simulation: Callable[[], Simulation],
        show: Callable[[str], None],
    ) -> None:
        self._path, self._key, self._simulation, self._show = path, key, simulation, show
        self._made: Simulation | None = None
        self._plans: dict[str, Lost] = {}
        self.sensitivity = self._kept(places) or self._measured()

    def of(self, precisions: Precisions) -> Lost:
        """What a plan loses. Raises ``Unsupported`` where it gives no numbers."""
        name = "".join("1" if precision == "int8" else "0" for precision in precisions)
        if name not in self._plans:
            self._show(f"what int8 costs whole plans, {len(self._plans)} looked at")
            self._plans[name] = self._simulated().look_at_plan(precisions)
        return self._plans[name]

    def keep(self) -> None:
        known = self.sensitivity
        metrics = {name: list(values) for name, values in known.metrics.items()}
        plans = {name: {"loss": lost.loss, "metrics": dict(lost.metrics)} for name, lost in self._plans.items()}
        losses = {"losses": list(known.losses), "count": known.cases, "metrics": metrics, "plans": plans}
        write_json(self._path, {**self._key, **losses})

    def _simulated(self) -> Simulation:
        self._made = self._made or self._simulation()
        return self._made

    def _measured(self) -> Sensitivity:
        def progress(done: int, total: int) -> None:
            if done * 10 // total > (done - 1) * 10 // total:
                self._show(f"what int8 costs each layer, {done} of {total} roundings")

        return sensitivity_of(self._simulated(), progress)

    def _kept(self, places: int) -> Sensitivity | None:
        """What an earlier run measured; None for another model, scheme or cases, and for a file that is damaged."""
        try:
            data = read_json(self._path)
            losses = tuple(finite(loss) for loss in data["losses"])
            metrics = {str(name): tuple(map(finite, values)) for name, values in data["metrics"].items()}
            plans = {str(name): _lost(item) for name, item in data["plans"].items()}
            whole = all(len(values) == places for values in (losses, *metrics.values()))
            if whole and all(data[name] == value for name, value in self._key.items()):
                self._plans = plans
                return Sensitivity(losses, int(data["count"]), metrics)
        except (OSError, *FAULTS):
            pass
        return None


def looked_at(
    table: Table,
    sensitivity: Sensitivity,
    lost: Callable[[Precisions], Lost],
    metric: str = "",
    shares: Sequence[float] = SHARES,
) -> Refined:
    """The table of ``metric``, noise when left out, corrected by what whole plans lose. Raises ``Unsupported`` for a metric
    that is undefined in every case, and what ``lost`` raises."""

    def loss_of(precisions: Precisions) -> float:
        found = lost(precisions)
        loss = found.metrics.get(metric) if metric else found.loss
        if loss is None:
            raise Unsupported(
                f"precision plans by {metric}", "it is undefined in every calibration case", "Leave it out"
            )
        return loss

    return refined(table, sensitivity.losses, loss_of, shares=shares)


def finite(value: Any) -> float:
    """Raises ``ValueError`` for what is no finite number."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"expected a number, but got {value!r}")
    return number


def _lost(data: Mapping[str, Any]) -> Lost:
    return Lost(finite(data["loss"]), {str(name): finite(value) for name, value in data["metrics"].items()})
