"""Fits a shipped study to this host: a few timed training steps decide for how long and at which size its models train.

The decisions are written into the study file as plain keys, so the same file gives the same study anywhere. A resumed
study measures nothing again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from edgedeploy.compress.host import TrainingHost, this_host
from edgedeploy.compress.oversight import Oversight, TrainProgress
from edgedeploy.compress.training import fit
from edgedeploy.errors import SpecError
from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.spec.source import line_of
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions

FITTED: Final = "demo"
SIZES_PX: Final = (128, 64)
"""Image sizes whose steps are timed; the times of sizes between them are interpolated linearly in pixels."""

TIMED_EPOCHS: Final = 3
"""Epochs timed after one warm-up, in which oneDNN generates its kernels and cases are drawn. The fastest counts: it is
the least disturbed by other work."""

TIMED_STEPS: Final = 4
"""Steps of a timed epoch."""

STEPS: Final = 20
"""Steps of an epoch of the demo: 160 cases in batches of 8."""

MODELS: Final = 13
"""Distinct models among the variants of a demo search, as seen in its runs, and the baseline that is trained further; each
is recovered once."""

SHARE_OF_WIDEST: Final = 0.7
"""Mean cost of a recovery over the widths, as a share of the cost at full width."""

VARIANTS: Final = 22
EACH_STEPS: Final = 100.0
QUERY_STEPS: Final = 60.0
"""Cost of a variant in training steps, because both depend on the processor: building, starting and scoring cost as
much as ``EACH_STEPS`` steps at 128 pixels, its queries as much as ``QUERY_STEPS`` steps on its own inputs. Estimated on
a busy machine: 10 s and 5 s where a step took 0.1 s (Zen 4, torch limited to AVX2)."""

END_S: Final = 120.0
"""Time outside the search: the timed steps before it; confirmation, front and report after it."""

LONGEST_S: Final = 86_400.0
LEAST_S: Final = 60
"""The shortest search time, even when less is asked for."""


@dataclass(frozen=True)
class Plan:
    """How the demo trains: input sizes in pixels, epochs of the baseline and of a recovery."""

    resolutions: tuple[int, int]
    epochs: int
    recovery_epochs: int

    def __str__(self) -> str:
        sizes = " and ".join(map(str, self.resolutions))
        return f"{self.epochs} epochs, {self.recovery_epochs} for a recovery, on {sizes} px"


LADDER: Final = (
    Plan((128, 96), 36, 8),
    Plan((128, 96), 36, 6),
    Plan((96, 64), 36, 6),
    Plan((96, 64), 32, 5),
)
"""Plans from the recipe's own down to the shortest whose results are still useful; the first that fits is taken.

Dice of the float model, trained in float32: 0.80 with 36 epochs on 128 pixels and 0.74 with 24; 0.78 with 36 on 96 pixels,
0.76 with 32, 0.74 with 24. Of the model with half the channels: 0.72 after 6 epochs on 128 pixels and 0.32 after 4; on 96
pixels 0.61 after 5, 0.56 after 4 and 0.24 after 3."""


@dataclass(frozen=True)
class Paces:
    """Seconds of a training step by image size, and how many times longer it takes beside a teacher."""

    step_s: Mapping[int, float]
    teacher: float

    def step(self, side: int) -> float:
        (large, large_s), (small, small_s) = sorted(self.step_s.items(), reverse=True)
        slope = (large_s - small_s) / (large**2 - small**2)
        return max(0.0, small_s + slope * (side**2 - small**2))


@dataclass(frozen=True)
class Expected:
    """What a plan costs in seconds, part by part. The baseline that is trained further is beyond the number of variants."""

    baseline_s: float
    recovery_s: float
    variants_s: float

    @property
    def total_s(self) -> float:
        return self.baseline_s + self.recovery_s + self.variants_s


def expected(plan: Plan, paces: Paces) -> Expected:
    step_s = [paces.step(side) for side in plan.resolutions]
    mean_s = sum(step_s) / len(step_s)
    recovery_s = STEPS * plan.recovery_epochs * mean_s * paces.teacher * SHARE_OF_WIDEST
    each_s = EACH_STEPS * paces.step(max(SIZES_PX)) + QUERY_STEPS * mean_s
    return Expected(STEPS * plan.epochs * step_s[0], MODELS * recovery_s, (VARIANTS + 1) * each_s)


def choose(paces: Paces, search_s: float) -> Plan:
    """The first plan that fits into the search's time, else the last one."""
    return next((plan for plan in LADDER if expected(plan, paces).total_s <= search_s), LADDER[-1])


def time_steps() -> Paces:
    """Time a few training steps of the demo's network on this host, in the precision that it trains in."""
    options = UltrasoundOptions()
    cases = options.baseline.batch_size * TIMED_STEPS
    task = SyntheticUltrasound(replace(options, train_cases=cases, resolutions=SIZES_PX))
    alone = {side: _step_s(task, options.baseline, side) for side in SIZES_PX}
    beside = _step_s(task, options.recovery, SIZES_PX[0], teacher=task.build(**_arch(SIZES_PX[0])))
    return Paces(alone, max(1.0, beside / alone[SIZES_PX[0]]))


def _arch(side: int) -> dict[str, Any]:
    return {"resolution": side, "upsampling": "transposed"}


def _step_s(task: SyntheticUltrasound, recipe: TrainRecipe, side: int, teacher: Any | None = None) -> float:
    spent_s: dict[int, float] = {}

    def hear(state: TrainProgress) -> None:
        if state.epoch:  # a slow epoch reports its progress more than once
            spent_s.setdefault(state.epoch, state.spent_s)

    timed = replace(recipe, epochs=1 + TIMED_EPOCHS)
    model = task.build(**_arch(side))
    fit(model, task, timed, arch=_arch(side), teacher=teacher, oversight=Oversight(progress=hear))
    return min(after - before for before, after in pairwise(spent_s.values())) / TIMED_STEPS


def fitted(text: str, within_s: float, paces: Paces, host: TrainingHost, cores: int) -> tuple[str, str]:
    """The demo's study file with the plan for ``within_s`` in all, and one line that says what was decided."""
    search_s = within_s - END_S
    plan = choose(paces, search_s)
    cost = expected(plan, paces)
    sizes = f"{list(plan.resolutions)}"
    values = {
        "task.options.resolutions": sizes,
        "task.options.baseline.epochs": str(plan.epochs),
        "task.options.recovery.epochs": str(plan.recovery_epochs),
        "space.resolution": sizes,
        "budget.wall_clock": f'"{max(LEAST_S, round(search_s))} s"',
    }
    precision = host.precision(UltrasoundOptions().baseline)
    why = "" if host.native_bfloat16 else " (no native bfloat16)"
    steps = ", ".join(f"{seconds * 1000:.0f} ms on {side} px" for side, seconds in paces.step_s.items())
    enough = "fits" if cost.total_s <= search_s else "is the least there is, and is expected not to fit"
    parts = {
        "the baseline": cost.baseline_s,
        f"{MODELS} recoveries": cost.recovery_s,
        f"{VARIANTS} variants": cost.variants_s,
    }
    comment = (
        f"Fitted to {host.cpu} with {cores} cores, which trains in {precision}{why}.",
        f"Measured: a training step takes {steps}, beside a teacher {paces.teacher:.2f} times as long.",
        f"Expected: {', '.join(f'{seconds / 60:.1f} min for {what}' for what, seconds in parts.items())}.",
        f"That {enough} into {within_s / 60:.0f} min with the confirmation and the report.",
    )
    said = f"{plan}; about {(cost.total_s + END_S) / 60:.0f} min"
    if cost.total_s > search_s:
        said += f", which is expected not to fit into {within_s / 60:.0f} min: the search then ends with what it has"
    return with_values(text, values, "task.options", comment), said


def fit_recipe(name: str, text: str, within_s: float) -> tuple[str, str]:
    """:func:`fitted` for this host, after timing it. Raises ``SpecError`` for a recipe that cannot be."""
    if name != FITTED:
        raise SpecError(f"recipe {name!r} --within", "only the demo brings its own data to time", "Edit its epochs")
    if not 0 < within_s <= LONGEST_S:
        found = f"{within_s:g} s is no time that it may take"
        raise SpecError(f"recipe {name!r} --within", found, "Give a time up to a day, such as '17 min'")
    return fitted(text, within_s, time_steps(), this_host(), len(os.sched_getaffinity(0)))


def with_values(text: str, values: Mapping[str, str], table: str, comment: Sequence[str]) -> str:
    """A study file with other values of keys that it has, and a comment above ``[table]``."""
    lines = text.splitlines()
    for key, value in values.items():
        number = line_of(text, key)
        assert number is not None, f"the recipe lacks {key}"
        lines[number - 1] = re.sub(r"=\s*(\[[^\]]*\]|\"[^\"]*\"|[^#\s]+)", f"= {value}", lines[number - 1], count=1)
    head = lines.index(f"[{table}]")
    return "\n".join([*lines[:head], *(f"# {line}" for line in comment), *lines[head:]]) + "\n"
