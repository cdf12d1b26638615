"""What proposed parameters stand for: the canonical variant, one property of a proposal for each field of a variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Final

from edgedeploy.records.elastic import NO_ELASTIC, Elastic, Part
from edgedeploy.records.precision import AS_GIVEN, CALIBRATED, NO_RULES, PrecisionPlan
from edgedeploy.records.shrink import SHRINK_KEYS, Shrink
from edgedeploy.records.storage import NO_STORAGE, storage_of
from edgedeploy.records.tiles import EXACT, overlap_of, tile_of
from edgedeploy.records.variant import BY_TIME, DEPLOYMENT_KEYS, NO_CODEC, NO_PLAN, UNIFORM, Scalar, Variant

TRAINED_LAYERS: Final = frozenset({"int8", "float32"})
"""Precisions that single layers may have in a model with ``training = "qat"``."""


@dataclass(frozen=True)
class Choices:
    """The choices of a study besides the model's precision.

    ``layers`` (precisions of single layers) and ``calibrations`` are by target; a missing target has none. ``cases`` is
    the number of available calibration cases. ``trained`` are the targets that support models trained to be int8;
    ``seven_bits`` maps a target to the precisions in which it supports 7-bit weights, ``quantizers`` to its quantizers,
    the default first, each with its calibration methods. ``made`` are the plans of budgets by target and name, made for
    its int8 model from calibration cases at the baseline's architecture. ``elastic`` is what allocated widths and
    depths are cut out of; ``layer_times`` names what allocations by time spend, empty before that is known.
    ``from_wider``: trainings start from wider models. ``batched`` are the targets whose artifacts can answer several
    requests at once.
    """

    plans: Mapping[str, PrecisionPlan] = field(default_factory=dict)
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    calibrations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cases: int = 0
    trained: tuple[str, ...] = ()
    seven_bits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    quantizers: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    made: Mapping[str, Mapping[str, PrecisionPlan]] = field(default_factory=dict)
    elastic: Elastic = NO_ELASTIC
    layer_times: str = ""
    from_wider: bool = False
    batched: tuple[str, ...] = ()


NO_CHOICES: Final = Choices()


def canonical(
    params: Mapping[str, Scalar],
    *,
    arch_defaults: Mapping[str, Scalar],
    target_precisions: Mapping[str, tuple[str, ...]],
    default_threads: int,
    choices: Choices = NO_CHOICES,
) -> Variant:
    """The variant that ``params`` stands for.

    Parameters that were not proposed take the baseline's value. Parameters without effect are normalised, so that equal
    builds are one variant; :class:`Proposal` says of each when it has none.
    """
    proposal = Proposal(params, arch_defaults, target_precisions, default_threads, choices)
    return Variant(**{name: getattr(proposal, name) for name in _FIELDS})


@dataclass(frozen=True)
class Proposal:
    """Proposed parameters beside what a study offers. Each field of a variant is a property, which says what becomes of a
    parameter that has no effect there."""

    params: Mapping[str, Scalar]
    arch_defaults: Mapping[str, Scalar]
    target_precisions: Mapping[str, tuple[str, ...]]
    default_threads: int
    choices: Choices

    @cached_property
    def target(self) -> str:
        return str(self.params["target"])

    @cached_property
    def precision(self) -> str:
        """What the target lacks becomes float32, which is what would be built; of a model that is taken as given, every
        precision becomes that."""
        asked = str(self.params.get("precision", "float32"))
        offered = self.target_precisions[self.target]
        if asked in offered:
            return asked
        return AS_GIVEN if AS_GIVEN in offered else "float32"

    @cached_property
    def arch(self) -> tuple[tuple[str, Scalar], ...]:
        """Every parameter that is none of edgedeploy's is a keyword of the task's ``build``."""
        ours = {*DEPLOYMENT_KEYS, *(name for name in SHRINK_KEYS if name not in self.arch_defaults)}
        theirs = {name: value for name, value in self.params.items() if name not in ours}
        return tuple(sorted({**self.arch_defaults, **theirs}.items()))

    @cached_property
    def baseline_arch(self) -> bool:
        """Whether the architecture is the baseline's."""
        return dict(self.arch) == dict(self.arch_defaults)

    @cached_property
    def shrink(self) -> Shrink:
        """A student has all of its heads, features, blocks, rank and tokens."""
        return Shrink.of(self.params, self.arch_defaults)

    @cached_property
    def width(self) -> float:
        """A student has full width."""
        return 1.0 if self.shrink.student else round(float(self.params.get("width", 1.0)), 6)

    @property
    def threads(self) -> int:
        return int(self.params.get("threads", self.default_threads))

    @cached_property
    def made_plan(self) -> PrecisionPlan | None:
        """The plan of a budget. It is dropped in a model that it was not made for, as one that leaves out more than
        channels, whose layers have other names."""
        if self.precision != "int8" or not self.baseline_arch or self.shrink:
            return None
        return self.choices.made.get(self.target, {}).get(self._plan_name)

    @property
    def _plan_name(self) -> str:
        return str(self.params.get("plan", NO_PLAN))

    @cached_property
    def plan(self) -> PrecisionPlan:
        """Rules that the target does not support are dropped."""
        named = self.made_plan or self.choices.plans.get(self._plan_name, NO_RULES)
        return named.allowed(self.precision, self.choices.layers.get(self.target, ()))

    @cached_property
    def precisions(self) -> tuple[str, ...]:
        """The model's precision, and those of its plan."""
        return (self.precision, *self.plan.precisions)

    @cached_property
    def training(self) -> str:
        """It is kept for int8 models only. A trained model may keep layers in float32 by a plan."""
        trainable = (
            self.made_plan is None
            and self.precision == "int8"
            and {*self.plan.precisions} <= TRAINED_LAYERS
            and self.target in self.choices.trained
        )
        return "qat" if trainable and self.params.get("training") == "qat" else ""

    @cached_property
    def calibrated(self) -> bool:
        """Whether ranges come from cases; settings of calibration are dropped where none do, as in a trained model."""
        return not self.training and any(name in CALIBRATED for name in self.precisions)

    @cached_property
    def quantizer(self) -> str:
        """One that the target lacks is dropped, and so is the target's own."""
        asked = str(self.params.get("quantizer", ""))
        others = tuple(self.choices.quantizers.get(self.target, {}))[1:]
        return asked if self.calibrated and asked in others else ""

    @property
    def calibration(self) -> str:
        """A method that the quantizer lacks is dropped, and so is the quantizer's own."""
        if not self.calibrated:
            return ""
        tools = self.choices.quantizers.get(self.target, {})
        offered = tools[self.quantizer] if self.quantizer else self.choices.calibrations.get(self.target, ())
        asked = str(self.params.get("calibration", ""))
        return asked if asked in offered[1:] else ""

    @property
    def calibration_cases(self) -> int:
        """As many as there are, and more, are all of them."""
        cases = int(self.params.get("calibration_cases", 0)) if self.calibrated else 0
        return cases if cases < self.choices.cases else 0

    @property
    def weight_bits(self) -> int:
        """Dropped where the target has 7-bit weights in none of the precisions."""
        narrow = self.choices.seven_bits.get(self.target, ())
        can_choose = any(name in narrow for name in self.precisions)
        return int(self.params.get("weight_bits", 0)) if can_choose else 0

    @cached_property
    def recovery_epochs(self) -> int | None:
        """Dropped for the baseline's own architecture as it is, which is not recovered."""
        recovers = self.width < 1.0 or bool(self.shrink) or not self.baseline_arch
        return int(self.params["recovery_epochs"]) if recovers and "recovery_epochs" in self.params else None

    @cached_property
    def allocation(self) -> str:
        """A model of full width has none, and neither has the uniform one."""
        asked = str(self.params.get("allocation", UNIFORM)) if self.width < 1.0 else UNIFORM
        return "" if asked == UNIFORM else asked

    @property
    def elastic(self) -> Elastic:
        """A model that loses something else than blocks and allocated channels is not cut out of an elastic network, and
        neither is one by time: networks that are trained before there are times would be other ones afterwards."""
        part = Part(self.width, self.allocation, self.shrink.depth)
        besides = replace(self.shrink, depth=1.0)
        return self.choices.elastic if part in self.choices.elastic.cuts and not besides else NO_ELASTIC

    @property
    def layer_times(self) -> str:
        return self.choices.layer_times if self.allocation == BY_TIME else ""

    @property
    def from_wider(self) -> bool:
        """A model of full width, one that is not trained, one that is cut out of an elastic network and one that leaves
        out more than channels start from no wider one."""
        trained = self.width < 1.0 and self.recovery_epochs != 0
        return self.choices.from_wider and trained and not self.elastic and not self.shrink

    @property
    def recovered(self) -> bool:
        """No search proposes it."""
        return False

    @cached_property
    def tile(self) -> str:
        return tile_of(self.params.get("tile", 0)).text

    @property
    def overlap(self) -> str:
        """Volumes that are not cut have none."""
        voxels = overlap_of(self.params.get("overlap", EXACT)) if self.tile else None
        return "" if voxels is None else str(voxels)

    @property
    def max_batch(self) -> int:
        """A target whose artifacts answer one request at once has no batches, and neither have volumes that are cut."""
        batched = self.target in self.choices.batched and not self.tile
        return int(self.params.get("max_batch", 1)) if batched else 1

    @property
    def instances(self) -> int:
        return int(self.params.get("instances", 1))

    @property
    def power_mode(self) -> str:
        return str(self.params.get("power_mode", ""))

    @property
    def storage(self) -> str:
        """Weights of a model that is trained to be int8 are shipped as they are."""
        return "" if self.training else storage_of(self.params.get("storage", NO_STORAGE)).text

    @property
    def image_codec(self) -> str:
        asked = str(self.params.get("image_codec", NO_CODEC))
        return "" if asked == NO_CODEC else asked


_FIELDS: Final = tuple(item.name for item in fields(Variant))
