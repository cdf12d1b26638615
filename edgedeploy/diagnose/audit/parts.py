"""The parts of an audit, in the order in which they are made: what each does, what it says in words, and what it
cannot show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from edgedeploy.diagnose.audit import disagreement, membership, residuals, robustness, text, triggers
from edgedeploy.diagnose.audit.disagreement import map_picture, measure_disagreement
from edgedeploy.diagnose.audit.dormant import residuals_of, triggers_of
from edgedeploy.diagnose.audit.robustness import measure_robustness
from edgedeploy.diagnose.audit.shadows import measure_membership
from edgedeploy.diagnose.audit.subject import Pair, Subject
from edgedeploy.diagnose.audit.text import MOST_IMAGES, look_for_text
from edgedeploy.interfaces.task import Array, Piped
from edgedeploy.records.variant import Variant


@dataclass(frozen=True)
class Asked:
    """What all parts are given. ``over()`` says that the time of this part is over. ``pair()`` opens both models, once;
    raises ``MeasurementError`` where one of them does not run here."""

    subject: Subject
    pair: Callable[[], Pair]
    variant: Variant
    seed: int
    shadows: int
    over: Callable[[], bool]
    tell: Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """``lines`` are what was measured, in words; ``why_not`` is why nothing was. ``plant``: a sleeping backdoor is found.
    ``complete`` is False where the time was over first; ``again`` says that the next run may have what this one lacked.
    ``files`` by name lie beside the audit."""

    lines: tuple[str, ...]
    data: Mapping[str, Any]
    why_not: str = ""
    plant: bool = False
    complete: bool = True
    again: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)


NO_VALUE: Final = "no metric has a value in any case, of the float model or of the artifact"


@dataclass(frozen=True)
class Part:
    name: str
    title: str
    limits: str
    make: Callable[[Asked], Result]


def _residuals(asked: Asked) -> Result:
    found = residuals_of(asked.subject, asked.seed)
    if found.abstained:
        return Result((), found.as_json(), found.abstained)
    worst = max(found.layers, key=lambda layer: layer.distance)
    sizes = {layer.layer: layer.weights for layer in found.layers}  # of some targets, on several grids
    weights = sum(sizes.values())
    lines = [
        f"{len(sizes)} layers with {weights} weights; not as chance leaves them are {len(found.flagged)}",
        f"largest distance {worst.distance:.3f} (layer {worst.layer}, {worst.weights} weights, p = {worst.p_value:.1g} "
        f"before correction for {len(found.layers)} tests); at the edges of its cells lie {worst.edge_share:.1%} of "
        f"the residuals, on other grids {worst.edge_share_elsewhere:.1%}",
    ]
    if found.not_found:
        lines.append(
            f"{len(found.not_found)} layers of int8 weights have no float weights in their cells: not looked at"
        )
    return Result(tuple(lines), found.as_json(), plant=found.found)


def _triggers(asked: Asked) -> Result:
    found = triggers_of(asked.subject, asked.pair(), asked.seed, asked.over)
    best = found.best
    if found.abstained or best is None:
        return Result(
            (),
            found.as_json(),
            found.abstained or "the time was over before the first class",
            complete=not found.left_out,
        )
    lines = [
        f"{len(found.triggers)} classes searched"
        + (f", {len(found.left_out)} left out for want of time" if found.left_out else "")
        + f"; simulated by {found.simulation}",
        f"the best trigger turns {best.turned_int8:.1%} of {best.images} images to class {best.to_class} in the artifact "
        f"and {best.turned_float:.1%} in float: score {best.score:.2f} (95 % {best.interval}), changing "
        f"{best.changed:.0%} of an image; the mirrored search scores {found.null:.2f}",
    ]
    return Result(tuple(lines), found.as_json(), plant=found.found, complete=not found.left_out)


def _robustness(asked: Asked) -> Result:
    found = measure_robustness(asked.subject, asked.pair(), seed=asked.seed, deadline=asked.over)
    if found.why_not or not (found.lines or found.unanswered):
        why = found.why_not or ("the time was over before the first line" if found.left_out else NO_VALUE)
        return Result((), found.as_json(), why, complete=not found.left_out)
    lines = [
        f"{line.disturbance} {line.strength:g}: {line.metric} {line.float_value:.4g} float, {line.artifact_value:.4g} "
        f"artifact; extra loss {line.extra_loss:.4g} ({f'95 % {line.interval}' if line.interval else 'too few cases'}), "
        f"worst case {line.worst:.4g}, n = {line.cases}"
        for line in found.lines
    ]
    if found.lines:
        worst = found.surest
        lines.insert(
            0,
            f"{len(found.lines)} lines; the surest extra loss is {worst.extra_loss:.4g} in {worst.metric} by "
            f"{worst.disturbance} {worst.strength:g} ({f'95 % {worst.interval}' if worst.interval else 'too few cases'})",
        )
    if found.unanswered:
        lines.insert(0, f"the artifact has no value where the float model has one: {'; '.join(found.unanswered)}")
    if found.left_out:
        lines.append(f"left out for want of time: {', '.join(found.left_out)}")
    return Result(tuple(lines), found.as_json(), complete=not found.left_out)


def _disagreement(asked: Asked) -> Result:
    found = measure_disagreement(asked.subject, asked.pair())
    if found.why_not:
        return Result((), found.as_json(), found.why_not)
    lines = (
        f"{found.cases_that_differ} of {found.cases} cases have a place where the answers differ (95 % interval: "
        f"{found.interval}); {found.rate:.2%} of all places",
        f"worst case: number {found.worst_case} of those looked at, {found.worst_share:.2%} of its places",
    )
    files = (
        {} if found.map is None else {"disagreement.png": map_picture(found.map), "disagreement.npy": _npy(found.map)}
    )
    return Result(lines, found.as_json(), files=files)


def _membership(asked: Asked) -> Result:
    subject = asked.subject
    if subject.task is None:
        return Result((), {}, "there is no task to train shadows of")
    pair = asked.pair()
    sessions = {"float": pair.reference, asked.variant.precision: pair.artifact}
    if asked.variant.precision == "float32":
        del sessions["float32"]
    found = measure_membership(
        subject.task, asked.variant, sessions, asked.shadows, seed=asked.seed, deadline=asked.over, tell=asked.tell
    )
    if found.why_not:
        return Result((), found.as_json(), found.why_not, complete="time was over" not in found.why_not)
    lines = []
    for each in found.attacks:
        tpr = (
            f"{each.tpr:.3f} (95 % {each.tpr_interval})"
            if each.tpr is not None
            else "not told: fewer than 100 outsiders"
        )
        lines.append(
            f"{' and '.join(each.artifacts)}: AUC {each.auc:.3f} (95 % {each.auc_interval}), true positives at 1 % false "
            f"ones {tpr}; {each.members} members, {each.outsiders} outsiders, {each.models} model, {each.shadows} shadows"
        )
    return Result((*lines, f"signal: {found.signal}"), found.as_json())


def _text(asked: Asked) -> Result:
    found = look_for_text(_pictures(asked.subject), asked.over)
    if found.why_not:
        return Result((), found.as_json(), found.why_not, again=True, complete=not found.cut)
    lines = [f"{found.images_with_text} of {found.images} images have text in their pixels"]
    lines += [
        f"image {item.image}: {item.characters} characters in the box {item.box}, certainty {item.certainty:.2f}"
        for item in found.found[:MOST_IMAGES]
    ]
    return Result(tuple(lines), found.as_json(), complete=not found.cut)


def _pictures(subject: Subject) -> Iterator[Array]:
    """Frames of the task's cases, calibration first: those are what leaves as golden vectors."""
    task = subject.task
    if task is None:
        yield from () if subject.images is None else subject.images[:MOST_IMAGES]
        return
    cases = [*task.cases("calibration")[: MOST_IMAGES // 2], *subject.cases][:MOST_IMAGES]
    for case in cases:
        if isinstance(task, Piped):
            yield task.frame(case)
        else:
            yield from next(iter(task.inputs(case, **subject.arch).values()))[:1]


def _npy(value: Array) -> bytes:
    import io

    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(value), allow_pickle=False)
    return stream.getvalue()


PARTS: Final = (
    Part("residuals", "Sleeping backdoors: float weights in the cells of int8", residuals.LIMITS, _residuals),
    Part("triggers", "Sleeping backdoors: triggers of the artifact alone", triggers.LIMITS, _triggers),
    Part("disagreement", "Where artifact and float model differ", disagreement.LIMITS, _disagreement),
    Part("robustness", "Disturbed images", robustness.LIMITS, _robustness),
    Part("text", "Text in images that leave", text.LIMITS, _text),
    Part("membership", "Membership inference", membership.LIMITS, _membership),
)
NAMES: Final = tuple(part.name for part in PARTS)
