"""How a variant is served, in the plan of its measurement."""

from __future__ import annotations

from dataclasses import replace

from edgedeploy.records.job import MeasurePlan, ScenarioPlan
from edgedeploy.records.variant import Variant


def serving(plan: MeasurePlan, variant: Variant) -> MeasurePlan:
    """``plan``, whose server has the variant's instances and batches."""
    served = {"max_batch": variant.max_batch, "instances": variant.instances}

    def own(scenario: ScenarioPlan) -> ScenarioPlan:
        return replace(scenario, settings={**scenario.settings, **served}) if scenario.name == "server" else scenario

    return replace(plan, scenarios=tuple(map(own, plan.scenarios)))
