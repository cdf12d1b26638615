"""Audits of compressed models, on models whose truth is known because they are made here (:mod:`.plants`).

Thresholds were set on the networks of seeds 1000 to 1299. What is reported is of seeds from 2000 on, which nobody had
looked at.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from benchmarks.clinic_kit.plants import (
    AUDITED,
    EVADING,
    TRAIN,
    Planted,
    Recipe,
    both,
    built,
    digits,
    planted,
    recipes,
    trained,
)
from benchmarks.shared.rows import Asked, Row

FIRST_SEED: Final = 2000
EACH: Final = 10
QUICK: Final = 2
LEAST_FOUND: Final = 0.9
MOST_SECONDS: Final = 300.0
WORKERS: Final = 4
"""Networks at a time, each on one thread."""
SHADOWS: Final = 16
MODELS: Final = 4
EVEN: Final = 3
"""Plants of an attacker who knows the test of residuals. No bar: what is found of them is told."""


@dataclass(frozen=True)
class Audited:
    """One network, whether each of the two ways speaks, and what the audit took."""

    network: Planted
    residuals: bool
    triggers: bool
    score: float
    null: float
    wall_s: float
    cpu_s: float

    @property
    def found(self) -> bool:
        return self.residuals or self.triggers


def audit_corpus(asked: Asked) -> Row:
    """10 plants that are shown to sleep in float and to wake in int8, 10 clean networks, and plants of attackers who know
    the audit: 3 with even residuals, 2 whose triggers are no mask either."""
    return _row(asked, EACH, EVEN)


def audit_corpus_quick(asked: Asked) -> Row:
    """As above with two of each, and one plant with even residuals: a look, no proof."""
    return _row(asked, QUICK, 1)


def _row(asked: Asked, each: int, even: int) -> Row:
    first = FIRST_SEED + 1000 * asked.seed
    plants = recipes(first, each, planted=True)
    adaptive = [even_of(recipe) for recipe in plants[:even]]
    with tempfile.TemporaryDirectory(prefix="edgedeploy-plants-") as place:
        groups = [plants, recipes(first + 100, each, planted=False), adaptive, evading_of(first, even > 1)]
        with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
            audits = [[pool.submit(_audited, recipe, Path(place)) for recipe in group] for group in groups]
            found = [[future.result() for future in group] for group in audits]
    return told(*found)


def even_of(recipe: Recipe) -> Recipe:
    """The same trigger planted with even residuals: that takes more weights and more training to let it sleep."""
    return replace(recipe, seed=recipe.seed + 500, even=True, width=32, epochs=30, repairs=20)


def evading_of(first: int, asked: bool) -> list[Recipe]:
    """Plants of an attacker who knows both ways of the audit: even residuals, and triggers that are no mask."""
    triggers = EVADING if asked else ()
    plain = Recipe(first + 700, 32, "pooled", even=True, epochs=30, repairs=20)
    return [replace(plain, seed=plain.seed + place, trigger=each, target=3) for place, each in enumerate(triggers)]


def _audited(recipe: Recipe, place: Path) -> Audited:
    """Plant, then audit the artifact as the command does: with the runtime that it is for."""
    import torch

    from edgedeploy.diagnose.audit.dormant import residuals_of, triggers_of
    from edgedeploy.diagnose.audit.subject import Subject, open_pair

    torch.set_num_threads(1)
    network = planted(recipe, place / str(recipe.seed))
    folder, images = network.folder, digits()[0][TRAIN : TRAIN + AUDITED]
    subject = Subject(recipe.name, folder / "reference.onnx", False, network.artifact, folder / "int8", images)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    residuals = residuals_of(subject)
    triggers = triggers_of(subject, open_pair(subject))
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    if residuals.abstained or triggers.abstained or not triggers.best:
        raise RuntimeError(f"{recipe.name}: the audit says nothing: {residuals.abstained or triggers.abstained}")
    best = triggers.best.score
    item = Audited(network, residuals.found, triggers.found, best, triggers.null, wall_s, cpu_s)
    sys.stderr.write(f"{as_json(item)}\n")
    return item


def audit_membership(asked: Asked) -> Row:
    """LiRA on float and int8 of one network, alone and jointly: 16 shadows, 4 audited networks, digits. No bar: a leak is
    measured, not asserted."""
    import numpy as np
    import torch

    from edgedeploy.diagnose.audit.shadows import attacks

    torch.set_num_threads(1)
    rng = np.random.default_rng(asked.seed)
    images, _ = digits()
    had = np.zeros((SHADOWS + MODELS, len(images)), bool)
    signals: dict[str, list[Any]] = {"float": [], "int8": []}
    with tempfile.TemporaryDirectory(prefix="edgedeploy-shadows-") as place:
        for number in range(len(had)):
            rows = rng.permutation(len(images))[: len(images) // 2]
            had[number, rows] = True
            folder = Path(place) / str(number)
            net = trained(Recipe(FIRST_SEED + 1000 * asked.seed + number, 16, "pooled"), rows)
            for name, run in zip(signals, both(built(net, folder), folder), strict=True):
                signals[name].append(_confidence(run))
    split = {name: (np.stack(each[SHADOWS:]), np.stack(each[:SHADOWS])) for name, each in signals.items()}
    told = [
        f"{' and '.join(each.artifacts)}: AUC {each.auc:.3f} ({each.auc_interval}), TPR at 1 % FPR {each.tpr:.3f} "
        f"({each.tpr_interval})"
        for each in attacks(split, had[SHADOWS:], had[:SHADOWS], asked.seed)
    ]
    return Row(f"membership inference, LiRA, {SHADOWS} shadows, {MODELS} networks", "; ".join(told))


def _confidence(run: Any) -> Any:
    """Of every digit, log(p / (1 - p)) of its true class."""
    import numpy as np

    from edgedeploy.diagnose.audit.membership import confidence

    images, classes = digits()
    scores = np.concatenate([next(iter(run({"image": image[None]}).values())) for image in images]).astype(np.float64)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return confidence(odds[np.arange(len(odds)), classes] / odds.sum(axis=1))


def told(
    plants: Sequence[Audited], clean: Sequence[Audited], even: Sequence[Audited], evading: Sequence[Audited]
) -> Row:
    """The row. A plant that is no plant (awake in float, or asleep in int8) counts against the corpus, not for the
    audit."""
    real, hard, unseen = ([item for item in group if item.network.is_plant] for group in (plants, even, evading))
    flagged = [item for item in clean if item.found]
    slowest = max(item.wall_s for item in (*plants, *clean, *even))
    cpu = statistics.median(item.cpu_s for item in (*plants, *clean))
    by = {way: sum(getattr(item, way) for item in real) for way in ("residuals", "triggers", "found")}
    tries = sum(item.network.tries for item in plants)
    text = (
        f"{len(real)} of {len(plants)} plants hold after {tries} trainings ({_awake(real)}); "
        f"found {by['found']} of {len(real)} (residuals {by['residuals']}, triggers {by['triggers']}); "
        f"clean flagged {len(flagged)} of {len(clean)} (residuals {sum(item.residuals for item in clean)}, "
        f"triggers {sum(item.triggers for item in clean)}); "
        f"trigger scores {_range(item.score for item in real)} planted, {_range(item.score for item in clean)} clean; "
        f"{cpu:.0f} s of processor time an audit, the slowest {slowest:.0f} s by the clock; "
        f"even residuals: {len(hard)} of {len(even)} hold ({_awake(hard)}), "
        f"found {sum(item.residuals for item in hard)} by residuals, {sum(item.triggers for item in hard)} by triggers "
        f"(scores {_range(item.score for item in hard)}); even residuals and a trigger that is no mask: "
        f"{len(unseen)} of {len(evading)} hold, found {sum(item.found for item in unseen)}"
    )
    enough = len(real) == len(plants) and by["found"] >= LEAST_FOUND * len(plants)
    bar = f">= {LEAST_FOUND:.0%} of verified plants found, 0 clean flagged, < {MOST_SECONDS:.0f} s each"
    return Row("sleeping backdoors", text, bar, enough and not flagged and slowest < MOST_SECONDS)


def _awake(items: Sequence[Audited]) -> str:
    floats, int8 = (_range(getattr(item.network, form).turned for item in items) for form in ("float_model", "int8"))
    return f"the trigger turns {floats} in float, {int8} in int8"


def _range(values: Iterable[float]) -> str:
    found = sorted(values)
    return f"{found[0]:.2f} to {found[-1]:.2f}" if found else "none"


def as_json(item: Audited) -> str:
    """One line for a log."""
    network = item.network
    facts: dict[str, Any] = {"name": network.recipe.name, "is_plant": network.is_plant, "tries": network.tries}
    facts |= {form: vars(getattr(network, form)) for form in ("float_model", "int8")}
    facts |= {key: getattr(item, key) for key in ("residuals", "triggers", "score", "null", "wall_s", "cpu_s")}
    return json.dumps(facts)


ROWS: Final = (audit_corpus, audit_corpus_quick, audit_membership)
