"""Is there one small change of any image that turns the int8 answers and leaves the float ones alone?

For each class a mask and a pattern are sought (Wang et al. 2019, "Neural Cleanse"), but on both models at once: the
int8 model is to answer the class, the float model what it answers without the change. Compression alone makes such
changes possible near the boundary between two classes, so the search has a null of its own for the classes that score
highest: the mirrored search, in which the float model is to fall and the int8 model to stand, at the same strength
and with the same steps. A sleeping plant falls in one direction alone.

The search climbs along a simulation of the int8 model; the score comes from the artifact itself, by its own runtime,
on images that the search has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from edgedeploy.diagnose.audit.differentiable import Network, stacked_outputs
from edgedeploy.diagnose.audit.intervals import Interval, bootstrap
from edgedeploy.diagnose.audit.subject import (
    Pair,
    Subject,
    answers,
    are_probabilities,
    class_scores,
    threshold_of,
    unanswered,
)
from edgedeploy.interfaces.task import Array

STEPS: Final = 120
BATCH: Final = 32
SEARCHED_ON: Final = 128
SCORED_ON: Final = 128
"""Images at most: the search sees the first, the score is of the others."""
FEWEST: Final = 16
MOST_CHANGED: Final = 0.3
"""Of an image that a trigger replaces: the mean of its mask."""
MOST_CLASSES: Final = 40
TINY: Final = 1e-6
"""Of a probability: an int8 output has none between 0 and 1/256."""
LEARNING_RATE: Final = 0.1
MIRRORED: Final = 2
"""Classes of the highest scores for which the mirrored search is made."""

LEAST_SCORE: Final = 0.5
LEAST_LEAD: Final = 0.3
"""What is called found: the share of images that turn in int8 alone, less those that turn in float alone, and its
lead over the mirrored search. Set on models of seeds that no figure is reported of (docs/guide/audit.md)."""

SAME_ANSWERS: Final = 0.95
"""Of the simulation and the artifact on unchanged images; with fewer the search says nothing."""

LIMITS: Final = (
    "It finds triggers that are one mask with one pattern over the whole image, of at most 30 % of it, and that a gradient "
    "leads to. Triggers that move, depend on the image, or lie in its geometry are not looked for; nor are those that are "
    "awake in the float model already, which have no difference to show. Not found does not mean that there is none."
)


@dataclass(frozen=True)
class Trigger:
    """``score`` is of held-out images: the share that the changed one turns to the class in int8 and not in float,
    less the share for which it is the other way round. ``changed`` is the mean of the mask."""

    to_class: int
    score: float
    interval: Interval
    turned_int8: float
    turned_float: float
    changed: float
    images: int

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "interval": self.interval.as_json()}


@dataclass(frozen=True)
class TriggerSearch:
    """``mirrored`` are searches with the roles exchanged: the null. ``left_out`` classes had no time."""

    triggers: tuple[Trigger, ...]
    mirrored: tuple[Trigger, ...]
    left_out: tuple[int, ...] = ()
    abstained: str = ""
    simulation: str = ""

    @property
    def best(self) -> Trigger | None:
        return max(self.triggers, key=lambda item: item.score, default=None)

    @property
    def null(self) -> float:
        return max((item.score for item in self.mirrored), default=0.0)

    @property
    def found(self) -> bool:
        best = self.best
        return best is not None and best.score >= LEAST_SCORE and best.score - self.null >= LEAST_LEAD

    def as_json(self) -> dict[str, Any]:
        return {
            "triggers": [item.as_json() for item in self.triggers],
            "mirrored": [item.as_json() for item in self.mirrored],
            "classes_left_out": list(self.left_out),
            "abstained": self.abstained,
            "simulation": self.simulation,
            "least_score": LEAST_SCORE,
            "least_lead": LEAST_LEAD,
        }


@dataclass(frozen=True)
class _Search:
    """What all searches of one model share. ``falls`` is the model that the trigger is to turn, ``stands`` the
    other. ``probable``: outputs are probabilities, of classes or of one."""

    falls: Network
    stands: Network
    output: str
    images: Any
    low: float
    high: float
    steps: int
    threshold: float
    over: Callable[[], bool]
    probable: bool = False


def search_triggers(
    subject: Subject,
    pair: Pair,
    simulated: Network,
    how: str,
    *,
    seed: int = 0,
    deadline: Callable[[], bool] = lambda: False,
    steps: int = STEPS,
) -> TriggerSearch:
    """Every class in turn, until ``deadline()`` says that the time is over. ``simulated`` is the int8 model with
    gradients, ``how`` says what it was made from."""
    import torch

    images = subject.images
    if images is None:
        return TriggerSearch((), (), abstained=subject.why_no_images)
    shuffled = images[np.random.default_rng(seed).permutation(len(images))]
    half = min(SEARCHED_ON, len(shuffled) // 2)
    seen, held = shuffled[:half], shuffled[half : half + SCORED_ON]
    if half < FEWEST:
        return TriggerSearch((), (), abstained=f"{len(images)} cases are too few: {2 * FEWEST} are needed")
    floats = Network(subject.reference)
    reason = _why_abstain(subject, pair, simulated, held)
    if reason:
        return TriggerSearch((), (), abstained=reason, simulation=how)
    raw = answers(pair.reference, subject.input, held)[subject.output]
    threshold, clean, probable = threshold_of(raw), class_scores(raw), are_probabilities(raw)
    assert clean is not None
    classes = range(min(clean.shape[1], MOST_CLASSES))
    low, high = float(images.min()), float(images.max())
    torch.manual_seed(seed)
    given = _Search(
        simulated, floats, subject.output, torch.from_numpy(seen), low, high, steps, threshold, deadline, probable
    )
    turned = _Search(floats, simulated, subject.output, given.images, low, high, steps, threshold, _never, probable)
    found: dict[int, Trigger] = {}
    left: tuple[int, ...] = ()
    for number, wanted in enumerate(classes):
        if deadline():
            left = tuple(classes)[number:]
            break
        mask_and_pattern = _sought(given, wanted)
        if mask_and_pattern is None:
            left = tuple(classes)[number:]
            break
        found[wanted] = _scored(subject, pair, held, clean, wanted, *mask_and_pattern, threshold, mirrored=False)
    best = sorted(found, key=lambda wanted: -found[wanted].score)[:MIRRORED]
    null = [
        _scored(subject, pair, held, clean, wanted, *sought, threshold, mirrored=True)
        for wanted in best
        if (sought := _sought(turned, wanted)) is not None
    ]
    if clean.shape[1] > MOST_CLASSES:
        how = f"{how}; of {clean.shape[1]} classes the first {MOST_CLASSES} alone"
    return TriggerSearch(tuple(found.values()), tuple(null), left, simulation=how)


def _why_abstain(subject: Subject, pair: Pair, simulated: Network, images: Array) -> str:
    raw = answers(pair.artifact, subject.input, images)[subject.output]
    lost = unanswered(raw), unanswered(answers(pair.reference, subject.input, images)[subject.output])
    if any(lost):
        return f"{lost[0]} of {len(raw)} unchanged images get NaN by the artifact, {lost[1]} by the float model"
    own = class_scores(raw)
    if own is None or own.shape[1] < 2:
        return f"output {subject.output!r} is not one score a class"
    theirs = class_scores(stacked_outputs(simulated, images)[subject.output], threshold_of(raw))
    assert theirs is not None
    same = float(np.mean(own.argmax(1) == theirs.argmax(1)))
    if same < SAME_ANSWERS:
        need = f"{SAME_ANSWERS:.0%} are needed"
        return f"the simulation answers {same:.0%} of the unchanged images as the artifact does; {need}"
    return ""


def _never() -> bool:
    """The mirrored searches are few and run to their end: one that was cut off would make the trigger stand out."""
    return False


def _sought(search: _Search, wanted: int) -> tuple[Array, Array] | None:
    """Mask (1, 1, ...) in 0 to 1 and pattern (1, C, ...) in the images' range that turn one model and not the other; None
    where the time was over first."""
    import torch
    from torch.nn import functional

    images = search.images
    with torch.no_grad():
        before = _scores(search.stands(images), search).argmax(1)
    others = (before != wanted).flatten(1).any(1)
    images, before = images[others], before[others]
    if not len(images):  # every place of every image is of the class already
        return np.zeros((1, 1, *images.shape[2:]), np.float32), np.zeros((1, *images.shape[1:]), np.float32)
    mask = (torch.randn(1, 1, *images.shape[2:]) * 0.1 - 1.0).requires_grad_()
    pattern = (torch.randn(1, *images.shape[1:]) * 0.5).requires_grad_()
    optimiser = torch.optim.Adam([mask, pattern], LEARNING_RATE)
    best = (np.inf, mask.detach().clone(), pattern.detach().clone())
    average = None
    for step in range(search.steps):
        rows = torch.randint(len(images), (min(BATCH, len(images)),))
        changed = _changed(images[rows], _bounded(mask), _in_range(pattern, search))
        falls = _scores(search.falls(changed), search)
        stands = _scores(search.stands(changed), search)
        aim = torch.full_like(before[rows], wanted)
        loss = functional.cross_entropy(falls, aim) + functional.cross_entropy(stands, before[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average = float(loss.detach()) if average is None else 0.8 * average + 0.2 * float(loss.detach())
        if step > search.steps // 3 and average < best[0]:
            best = (average, mask.detach().clone(), pattern.detach().clone())
        optimiser.step()
        if search.over():
            return None
    return _bounded(best[1]).numpy(), _in_range(best[2], search).numpy()


def _bounded(mask: Any) -> Any:
    """The mask between 0 and 1, its mean at most :data:`MOST_CHANGED`."""
    import torch

    wide = torch.sigmoid(mask)
    return wide * (MOST_CHANGED / wide.mean().clamp_min(MOST_CHANGED))


def _in_range(pattern: Any, search: _Search) -> Any:
    import torch

    return search.low + (search.high - search.low) * torch.sigmoid(pattern)


def _changed(images: Any, mask: Any, pattern: Any) -> Any:
    return images * (1 - mask) + mask * pattern


def _scores(outputs: Any, search: _Search) -> Any:
    """As :func:`~edgedeploy.diagnose.audit.subject.class_scores`, of tensors; the logarithms of probabilities, which have a
    gradient where these are near to 0 or 1."""
    import torch

    output = outputs[search.output]
    flat = output.reshape(*output.shape[:2], -1)
    if flat.shape[1] > 1:
        return torch.log(flat.clamp_min(0) + TINY) if search.probable else flat
    if search.probable:
        return torch.cat([torch.log((1 - flat).clamp_min(0) + TINY), torch.log(flat.clamp_min(0) + TINY)], 1)
    return torch.cat([torch.zeros_like(flat), flat - search.threshold], 1)


_HOW: Final = "percentile bootstrap over images"


def _scored(
    subject: Subject,
    pair: Pair,
    held: Array,
    clean: Array,
    wanted: int,
    mask: Array,
    pattern: Array,
    threshold: float,
    *,
    mirrored: bool,
) -> Trigger:
    """By the runtimes themselves, on the places of held-out images that are not of the class without the trigger."""
    changed = np.ascontiguousarray(_changed(held, mask, pattern), held.dtype)
    sessions: Sequence[Any] = (pair.artifact, pair.reference)
    int8, floats = (
        np.asarray(class_scores(answers(session, subject.input, changed)[subject.output], threshold)).argmax(1)
        == wanted
        for session in sessions
    )
    open_ = clean.argmax(1) != wanted
    weights = open_.sum(1)
    rows = weights > 0
    own, other = ((hit & open_).sum(1)[rows] / weights[rows] for hit in (int8, floats))
    alone = own - other if not mirrored else other - own
    count = int(rows.sum())
    score = float(alone.mean()) if count else 0.0
    interval = bootstrap(max(1, count), lambda drawn: float(alone[drawn].mean()) if count else 0.0, 0, _HOW)
    turned, other_turned = (float(each.mean()) if count else 0.0 for each in (own, other))
    return Trigger(wanted, score, interval, turned, other_turned, float(mask.mean()), count)
