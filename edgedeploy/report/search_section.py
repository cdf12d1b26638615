"""The report's section on how the search went: hypervolume, settings beside outcomes, and what explains them."""

from __future__ import annotations

from collections.abc import Mapping

from edgedeploy.evidence.front import Front
from edgedeploy.evidence.importance import Importances, importances
from edgedeploy.evidence.quantities import heading, phrase, quantity
from edgedeploy.report.blocks import Block, Chart, Section, Text
from edgedeploy.report.data import ReportData
from edgedeploy.report.search_plots import drawn_rows, hypervolume_figure, importance_figure, parallel_figure
from edgedeploy.study.progress import Progress, progress_of

_INSTEAD = "The plot needs scripts; the tables do not."
FEWEST_ROWS = 2


def search_section(data: ReportData) -> Section | None:
    """Nothing for a study with fewer than two variants."""
    front = data.front
    if len(front.rows) < FEWEST_ROWS:
        return None
    caption = (
        "From the stored measurements alone, valid ones only, in the order of their dates. These plots describe what was "
        "tried; what may be concluded stands above."
    )
    progress = progress_of(front, data.measurements, data.created_utc)
    blocks = [*_hypervolume(progress, front), *_parallel(front), *_importances(front)]
    return Section("How the search went", caption, blocks)


def _hypervolume(progress: Progress, front: Front) -> list[Block]:
    title = Text("Hypervolume", "heading")
    if progress.missing:
        return [title, Text(progress.missing, "note")]
    steps = progress.steps
    what = (
        f"The share that is dominated of the box between the reference ({_point(progress.reference, front)}) and the best "
        f"values of all ({_point(progress.best, front)}), within the limits: {steps[-1].volume:.3f} after {len(steps)} "
        "evaluations. The reference is the float baseline's value for a metric of the board, and the worst feasible value "
        "for a metric of the task; without a baseline, the worst feasible value. Values compare within this study only."
    )
    label = f"Hypervolume against evaluations: {steps[0].volume:.3f} after the first, {steps[-1].volume:.3f} after the last."
    blocks: list[Block] = [title, Text(what, "note")]
    blocks.append(Chart("progress-chart", label, hypervolume_figure(steps, over_time=False), _INSTEAD))
    if any(step.elapsed_s is None for step in steps):
        return [*blocks, Text("Not drawn against time: some measurements have no date that can be read.", "note")]
    hours = (steps[-1].elapsed_s or 0.0) / 3600
    label = f"Hypervolume against wall time: the last evaluation ended {hours:.2f} hours after the study began."
    blocks.append(Chart("progress-time-chart", label, hypervolume_figure(steps, over_time=True), _INSTEAD))
    return [*blocks, Text("Against wall time, pauses between runs included.", "note")]


def _point(values: Mapping[str, float], front: Front) -> str:
    return ", ".join(f"{phrase(name)} {quantity(value, name, front.unit(name))}" for name, value in values.items())


def _parallel(front: Front) -> list[Block]:
    shown, count = len(drawn_rows(front)), len(front.rows)
    which = "every variant" if shown == count else f"{shown} of {count} variants, the front's and the baselines first"
    label = f"Parallel coordinates of {shown} variants: their settings and objectives, as in the table."
    note = f"A line for {which}, through the settings in which they differ and the objectives."
    return [
        Text("Settings and outcomes", "heading"),
        Text(note, "note"),
        Chart("parallel-chart", label, parallel_figure(front), _INSTEAD),
    ]


def _importances(front: Front) -> list[Block]:
    """Of variants with a value for every objective, within the limits or not. The recovered baseline is none of the
    search's."""
    goals = [goal.metric for goal in front.objectives]
    rows = [row for row in front.rows if set(goals) <= set(row.estimates) and not row.variant.recovered]
    values = [{name: row.estimates[name].value for name in goals} for row in rows]
    found = importances([row.variant for row in rows], values, front.objectives)
    title = Text("What explains the outcomes", "heading")
    if found.missing:
        return [title, Text(found.missing, "note")]
    label = "Importances of parameters: " + "; ".join(_largest(name, found) for name in goals) + "."
    return [
        title,
        Text(_explained(found), "note"),
        Chart("importance-chart", label, importance_figure(found), _INSTEAD),
    ]


def _largest(metric: str, found: Importances) -> str:
    shares = found.shares[metric]
    name = max(shares, key=lambda each: shares[each])
    return f"{heading(metric)} most by {name} ({shares[name]:.2f})"


def _explained(found: Importances) -> str:
    together = ", ".join(f"{sum(shares.values()):.0%} of {phrase(name)}" for name, shares in found.shares.items())
    scales = ", ".join(map(phrase, found.logarithmic))
    return (
        f"The share of each objective's variance that a parameter explains in an additive fit of {found.variants} measured "
        f"variants, averaged over orders of adding the parameters; together they explain {together} (adjusted R\u00b2), the "
        "rest is interaction and noise. This describes the variants that the search chose to measure: it is no experiment, "
        "and parameters that changed together share what either explains."
        + (f" Fitted on a logarithmic scale: {scales}." if scales else "")
    )
