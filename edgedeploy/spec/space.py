"""The keys of a study's search space, and their values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.errors import nearest
from edgedeploy.records.precision import CALIBRATED, LAYER_PRECISIONS
from edgedeploy.records.storage import storage_of
from edgedeploy.records.variant import ALLOCATIONS, CALIBRATIONS, NO_PLAN, TRAININGS, Scalar
from edgedeploy.spec.shrink import SHRINK_TEXTS
from edgedeploy.spec.source import SpecSource

MAX_CHOICES = 64

BUDGET_WORD: Final = "auto:"

SPACE_KEYS: Final[Mapping[str, str]] = {
    "precision": "Numeric precisions: float32, bfloat16, float16, int8, int8-dynamic, int8-weights, int4-weights; a target "
    "that lacks one builds float32.",
    "width": "Shares of channels that structured pruning keeps, above 0 and at most 1. For tasks in PyTorch.",
    "allocation": 'How a width is spread over the layers: "uniform" (the same share of channels in each), or by the loss '
    'that channels are worth, for the multiplications ("compute"), the weights ("bytes") or the layer times ("time") of the '
    "uniform width; times are those of the baseline on the study's board.",
    "threads": "Threads of a session; the board's cores, 4 at most, when left out.",
    "plan": 'Names of precision plans of [plans], "none", and budgets such as "auto:0.5": a plan that is made once float32 '
    "and int8 are measured, and spends that share of the time that int8 saves on the layers that int8 hurts most; "
    '"auto:0.5:dice_mean" judges by a metric of the task.',
    "calibration": "How int8 chooses its ranges: minmax, mean-minmax, percentile, entropy, mse, as far as a target has it.",
    "calibration_cases": "How many calibration cases int8 sees; all of them when left out.",
    "training": 'Where int8 comes from: "ptq" (calibration) or "qat" (training with quantizers).',
    "power_mode": "The board's power modes: governors, or a Jetson's nvpmodel.",
    "recovery_epochs": "Epochs of recovery of a changed architecture, such as [0, 4, 12, 36]: each value starts from the "
    "one before it, 0 trains nothing; those of the task's recipe when left out.",
    "quantizer": "Which tool makes int8 of the float model, as far as a target has it: nncf, nncf-minmax, "
    "nncf-transformer, onnxruntime, onnxruntime-products, onnxruntime-smooth; the target's own when left out.",
    **SHRINK_TEXTS,
    "tile": 'How volumes are cut, for networks that answer each voxel: a side in voxels, sides such as "96x96x64", memory '
    'such as "2 GiB" (the tile that computes the fewest voxels and is predicted to stay within it), 0 for the whole volume.',
    "overlap": 'What tiles share to each side: "exact" (what the network reads, so that the result is that of the whole '
    "volume; when left out), or voxels.",
    "max_batch": "The most requests that are answered at once, 1 to 64, as far as a target can. For "
    '`scenarios = ["server"]`.',
    "instances": 'Sessions that answer side by side, 1 to 16, each with its threads. For `scenarios = ["server"]`.',
    "storage": 'How weights are shipped, and decoded before anything is built of them: "none", "int8-zstd", "uniform:0.3" '
    '(a step of so many standard deviations of a layer), "uniform:12x" (within that share of float32, by what errors cost), '
    '"hyper:4" (Hyper-Compression, the side in standard deviations). For tasks in PyTorch.',
    "image_codec": "Codecs that images pass before they are the model's input: none, jpeg-q1 to q100, jpegls, "
    "jpegls-near1 to near255, j2k, j2k-psnr20 to psnr100, htj2k, htj2k-step0.00001 to step0.5, jxl, jxl-d0.01 to d15. Their "
    "bytes are the metric `image_bytes`; their decoders run in the real-time scenario. For tasks whose frames are images.",
    "weight_bits": "Bits of int8 weights, 8 or 7; the board chooses when left out.",
}
"""Parameters of ``[space]`` that edgedeploy itself understands; every other one is a keyword of the task's ``build``."""


def expand(key: str, values: Any) -> tuple[Any, ...]:
    """A list as it is, or ``{low, high, step}`` written out."""
    if isinstance(values, dict):
        if set(values) != {"low", "high", "step"}:
            raise ValueError(
                f"{key}: a range has exactly low, high and step, but got {', '.join(map(str, values)) or 'nothing'}"
            )
        low, high, step = values["low"], values["high"], values["step"]
        if any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in (low, high, step)):
            raise ValueError(f"{key}: low, high and step must be numbers")
        if not (low <= high and step > 0):
            raise ValueError(
                f"{key}: `low <= high` and `step > 0` must hold, but got (low={low}, high={high}, step={step})"
            )
        values = [low + i * step for i in range(int(min(MAX_CHOICES + 1, (high - low) / step + 1.000001)))]
    if not isinstance(values, list):
        raise ValueError(f"{key}: expected a list of values, or a range {{ low, high, step }}, but got {values!r}")
    if not values:
        raise ValueError(f"{key}: the list of values is empty, so the space is empty")
    if len(values) > MAX_CHOICES:
        raise ValueError(f"{key}: at most {MAX_CHOICES} values, but got {len(values)} or more")
    nested = [value for value in values if isinstance(value, (dict, list))]
    if nested:
        raise ValueError(f"{key}: expected single values, but got {nested[0]!r} among them")
    if len({(type(value), value) for value in values}) != len(values):
        raise ValueError(f"{key}: a value stands twice in {values!r}")
    return tuple(values)


def whole_numbers(
    source: SpecSource, key: str, values: Sequence[Scalar], least: int, most: int, remedy: str = ""
) -> None:
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
            raise source.error(key, f"expected whole numbers from {least} to {most}, but got {number!r}", remedy)


@dataclass(frozen=True)
class PlanGoal:
    """A plan that is made: it may spend ``budget``, a share from 0 to 1 of the time that int8 saves, on layers in float32;
    and loses as little as it can of the outputs' signal over noise, or of a ``metric`` of the task."""

    budget: float
    metric: str = ""


def plan_goal(name: object) -> PlanGoal | None:
    """What ``auto:0.25`` or ``auto:0.25:dice_mean`` asks for; None for another name. Raises ``ValueError`` for a budget that
    is none."""
    if not isinstance(name, str) or not name.startswith(BUDGET_WORD):
        return None
    share, _, metric = name.removeprefix(BUDGET_WORD).partition(":")
    budget = float(share)
    if not 0.0 <= budget <= 1.0:
        raise ValueError(f"expected a share from 0 to 1, but got {budget}")
    return PlanGoal(budget, metric)


def check_plan_metrics(source: SpecSource, space: Mapping[str, Sequence[Scalar]], metrics: Collection[str]) -> None:
    """Refuse plans of a metric that the task does not have."""
    for name in space.get("plan", ()):
        goal = plan_goal(name)
        if goal is not None and goal.metric and goal.metric not in metrics:
            found = f"{name!r} names no metric of the task"
            raise source.error("space.plan", found, nearest(goal.metric, metrics))


def check_plans(
    source: SpecSource, space: Mapping[str, Sequence[Scalar]], plans: Mapping[str, Mapping[str, str]]
) -> None:
    """Refuse plans that nobody names, rules in unknown precisions, and budgets in a space where no plan can be made."""
    named = []
    for name in space.get("plan", ()):
        try:
            asked = plan_goal(name)
        except ValueError:
            found = f"{name!r} has no share from 0 to 1 behind {BUDGET_WORD!r}"
            raise source.error("space.plan", found, f'For example "{BUDGET_WORD}0.5"') from None
        if asked is None:
            named.append(name)
        elif not {"float32", "int8"} <= {*space.get("precision", ())}:
            found = f"{name!r} is made from the times of the float32 and the int8 model"
            raise source.error("space.plan", found, 'Add "float32" and "int8" to precision')
    subset(source, "space.plan", named, (NO_PLAN, *plans), f"plans are budgets ({BUDGET_WORD}0.5) and")
    for name, rules in plans.items():
        if name == NO_PLAN or name.startswith(BUDGET_WORD):
            raise source.error(
                f"plans.{name}", f"a plan of one's own cannot have that name, {name!r} means something else"
            )
        if not rules:
            raise source.error(f"plans.{name}", "plans without a rule stand for no plan at all")
        subset(source, f"plans.{name}", tuple(rules.values()), LAYER_PRECISIONS, "precisions are")


def subset(source: SpecSource, key: str, values: Sequence[Scalar], legal: Sequence[Scalar], text: str) -> None:
    for value in values:
        if not any(type(value) is type(other) and value == other for other in legal):
            found = f"{value!r} is not among the legal values"
            raise source.error(key, found, f"{text[0].upper()}{text[1:]}: {', '.join(map(repr, legal))}")


def check_quantizers(
    source: SpecSource, space: Mapping[str, Sequence[Scalar]], precisions: Iterable[str], offered: Iterable[str]
) -> None:
    """Refuse quantizers that are none, that no target of the study has (``offered``), or that have nothing to do:
    ``precisions`` are those that models and single layers may have."""
    asked = space.get("quantizer", ())
    known = sorted(set(offered))
    for name in asked:
        if name not in known:
            found = f"no target of this study quantizes by {name!r}"
            raise source.error("space.quantizer", found, f"They have: {', '.join(known) or 'none'}")
    if asked and not {*CALIBRATED} & {*precisions}:
        found = f"quantizers make {' and '.join(CALIBRATED)}, and the space asks for none"
        raise source.error("space.quantizer", found, f'Add "{CALIBRATED[0]}" to precision, or remove `quantizer`')


def check_training(source: SpecSource, space: Mapping[str, Sequence[Scalar]]) -> None:
    """Refuse calibrations and trainings that are none, and training to int8 where nothing is int8."""
    subset(source, "space.calibration", space.get("calibration", ()), CALIBRATIONS, "calibrations are")
    subset(source, "space.training", space.get("training", ()), TRAININGS, "trainings are")
    if "qat" in space.get("training", ()) and "int8" not in space.get("precision", ()):
        found = f'"qat" trains int8 models, but `precision` is {list(space.get("precision", ("float32",)))}'
        raise source.error("space.training", found, 'Add "int8" to precision, or remove `training`')


def check_storage(source: SpecSource, space: Mapping[str, Sequence[Scalar]]) -> None:
    """Refuse ways to ship weights that are none, and two values that mean one."""
    found = []
    for value in space.get("storage", ()):
        try:
            found.append(storage_of(value).text)
        except ValueError as exc:
            raise source.error("space.storage", str(exc), 'For example ["none", "uniform:12x"]') from None
    if found and "" not in found:
        text = "the baseline's weights are shipped as they are, and the space has no such value"
        raise source.error("space.storage", text, 'Add "none"')
    if len(set(found)) != len(found):
        raise source.error("space.storage", f"two values of {list(space['storage'])!r} mean the same", "Remove one")


def check_serving(
    source: SpecSource, space: Mapping[str, Sequence[Scalar]], scenarios: Sequence[str], queue: int
) -> None:
    """Refuse batches and instances that nothing would use, and batches that no ``queue`` of so many requests can fill."""
    for key in ("max_batch", "instances"):
        if key in space and "server" not in scenarios:
            found = "only a server answers several requests at once, and the study measures none"
            raise source.error(f"space.{key}", found, 'Add "server" to scenarios in [measure], or remove it')
    largest = max((value for value in space.get("max_batch", ()) if isinstance(value, int)), default=1)
    if largest > queue:
        found = f"a batch of {largest} never fills while {queue} requests wait at most"
        raise source.error("space.max_batch", found, "Raise `queue` in [measure.server], or search smaller batches")


def check_allocations(source: SpecSource, space: Mapping[str, Sequence[Scalar]]) -> None:
    subset(source, "space.allocation", space.get("allocation", ()), ALLOCATIONS, "allocations are")
