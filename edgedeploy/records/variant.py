"""A variant: one point of the search space, in canonical form, named by its digest.

Proposals that would build the same artifact must give the same variant, or the search would evaluate it twice. Only
:func:`canonical` turns proposed parameters into a variant.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from edgedeploy.records.elastic import NO_ELASTIC, Elastic
from edgedeploy.records.precision import AS_GIVEN, CALIBRATED, NO_RULES, PrecisionPlan
from edgedeploy.records.shrink import NO_SHRINK, SHRINK_KEYS, Shrink
from edgedeploy.records.storage import NO_STORAGE, storage_of
from edgedeploy.records.tiles import EXACT, overlap_of, tile_of

Scalar = bool | int | float | str

Allocation = Literal["compute", "bytes"]

UNIFORM: Final = "uniform"

ALLOCATIONS: Final = (UNIFORM, "compute", "bytes")
"""How a width is spread over the layers: the same share of channels everywhere, or by the layers' sensitivity so that the
model's multiplications, or the bytes of its weights, are those of the uniform width."""

PRECISIONS: Final = ("float32", "bfloat16", "float16", "int8", "int8-dynamic", "int8-weights", "int4-weights", AS_GIVEN)
"""Numeric precisions a variant may ask for; a target names the ones it has."""

CALIBRATIONS: Final = ("minmax", "mean-minmax", "percentile", "entropy", "mse")
"""All methods to choose an activation range from calibration cases. A target lists those it has, its default first."""

TRAININGS: Final = ("ptq", "qat")
"""Where an int8 model's ranges come from: calibration of the float model, or training with quantizers."""

NO_PLAN: Final = "none"

NO_CODEC: Final = "none"
"""Images reach the model as they are."""

TRAINED_LAYERS: Final = frozenset({"int8", "float32"})
"""Precisions that single layers may have in a model with ``training = "qat"``."""

DEPLOYMENT_KEYS: Final = (
    *("target", "precision", "threads", "width", "plan", "calibration", "calibration_cases", "training", "power_mode"),
    *("weight_bits", "quantizer", "recovery_epochs", "allocation", "tile", "overlap", "max_batch", "instances"),
    "storage",
    "image_codec",
)
"""Search parameters that edgedeploy itself understands, besides those of :mod:`edgedeploy.records.shrink`; every other one
belongs to the task's architecture."""


def canonical_json(value: object) -> str:
    """Deterministic JSON text: sorted keys, no white space, NaN and Inf refused (``ValueError``)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest_of(value: object) -> str:
    """SHA-256 of the canonical JSON, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


MOST_BATCH: Final = 64
"""The most requests that an artifact answers at once."""

MOST_INSTANCES: Final = 16
"""The most sessions that serve side by side."""


@dataclass(frozen=True, order=True)
class Variant:
    """Architecture, compression, target and runtime settings.

    - ``arch``: the task's own keywords as sorted pairs (hashable).
    - ``width``: share of channels that structured pruning keeps (1.0 is unpruned).
    - ``allocation``: what the layers share out so that it costs what the uniform ``width`` costs; empty for the uniform one.
    - ``threads``: intra-op threads of the session.
    - ``plan``: precisions of single layers that differ from ``precision``.
    - ``calibration``: calibration method; empty for the target's default. ``calibration_cases``: 0 for all cases.
    - ``training``: ``"qat"`` for a model trained to be int8, else empty.
    - ``power_mode``: the board's mode during measurement; empty leaves it unchanged.
    - ``weight_bits``: bits of int8 weights; 0 lets the board decide.
    - ``recovery_epochs``: epochs of recovery in all, a rung of the study's ladder; None for those of the task's recipe.
    - ``quantizer``: the tool that makes int8 of the float model; empty for the target's default.
    - ``elastic``: the network that the model is cut out of before its own recovery; none for what is pruned from the
      baseline.
    - ``from_wider``: the training starts from the nearest wider model that is trained by then, not from the baseline; the
      model's record says which one that was.
    - ``shrink``: what is left out of the network besides channels, or which student is in its place.
    - ``storage``: how the weights are shipped (:mod:`edgedeploy.records.storage`); the model is what they decode to. Empty
      for weights as they are.
    - ``tile``: how volumes are cut (:mod:`edgedeploy.records.tiles`), empty for whole ones; ``overlap``: what neighbours
      share in voxels, empty for as much as makes the result that of the whole volume.
    - ``max_batch``: the most requests that the artifact answers at once; ``instances``: sessions that serve side by side.
      Both are of a server (``[measure.server]``); everything else is measured with one request and one session.
    - ``image_codec``: what images are coded and decoded by before they are the model's input
      (:mod:`edgedeploy.runtime.pipeline.codecs`), empty for none. Training and calibration see them as they are.
    - ``recovered``: the baseline after as much further training as recovered variants get; no search proposes it.
    """

    target: str
    precision: str
    width: float
    arch: tuple[tuple[str, Scalar], ...]
    threads: int
    plan: PrecisionPlan = NO_RULES
    calibration: str = ""
    calibration_cases: int = 0
    power_mode: str = ""
    training: str = ""
    weight_bits: int = 0
    recovery_epochs: int | None = None
    quantizer: str = ""
    allocation: str = ""
    elastic: Elastic = NO_ELASTIC
    recovered: bool = False
    from_wider: bool = False
    shrink: Shrink = NO_SHRINK
    tile: str = ""
    overlap: str = ""
    max_batch: int = 1
    instances: int = 1
    storage: str = ""
    image_codec: str = ""

    @property
    def whole(self) -> bool:
        """Whether nothing of the architecture's network is left out, and no student stands in its place."""
        return self.width == 1.0 and not self.shrink

    @property
    def arch_kwargs(self) -> dict[str, Scalar]:
        return dict(self.arch)

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "precision": self.precision,
            "width": self.width,
            "arch": dict(self.arch),
            "threads": self.threads,
            **self._build_settings,
            **({"power_mode": self.power_mode} if self.power_mode else {}),
            **self._recovery,
            **self._allocated,
            **self._cut_of,
            **self._left_out,
            **self._start,
            **self._shipped,
            **({"recovered": True} if self.recovered else {}),
            **({"instances": self.instances} if self.instances > 1 else {}),
            **({"image_codec": self.image_codec} if self.image_codec else {}),
        }

    @property
    def _recovery(self) -> dict[str, int]:
        return {} if self.recovery_epochs is None else {"recovery_epochs": self.recovery_epochs}

    @property
    def _allocated(self) -> dict[str, str]:
        return {"allocation": self.allocation} if self.allocation else {}

    @property
    def _cut_of(self) -> dict[str, Any]:
        return {"elastic": self.elastic.as_json()} if self.elastic else {}

    @property
    def _left_out(self) -> dict[str, Any]:
        return {"shrink": self.shrink.as_json()} if self.shrink else {}

    @property
    def _start(self) -> dict[str, bool]:
        return {"from_wider": True} if self.from_wider else {}

    @property
    def _shipped(self) -> dict[str, str]:
        return {"storage": self.storage} if self.storage else {}

    @property
    def _build_settings(self) -> dict[str, Any]:
        """The build settings besides the precision that differ from the target's defaults. Defaults are left out, so
        that variants keep their digest when a new setting is added."""
        settings = {
            "plan": self.plan.as_json(),
            "calibration": self.calibration,
            "calibration_cases": self.calibration_cases,
            "training": self.training,
            "weight_bits": self.weight_bits,
            "quantizer": self.quantizer,
            "tile": self.tile,
            "overlap": self.overlap,
            "max_batch": self.max_batch if self.max_batch > 1 else 0,
        }
        return {name: value for name, value in settings.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Variant:
        """Raises ``ValueError``, ``KeyError``, ``TypeError``, ``AttributeError`` or ``OverflowError`` for data that
        :meth:`as_json` cannot have written."""
        odd = [name for name, value in data["arch"].items() if not isinstance(value, Scalar)]
        if odd or not math.isfinite(float(data["width"])):
            raise ValueError(
                f"variant: expected scalars, but got { ({**data['arch'], 'width': data['width']})!r}"[:160]
            )
        return cls(
            target=str(data["target"]),
            precision=str(data["precision"]),
            width=float(data["width"]),
            arch=tuple(sorted(data["arch"].items())),
            threads=int(data["threads"]),
            plan=PrecisionPlan.from_json(data.get("plan", ())),
            calibration=str(data.get("calibration", "")),
            calibration_cases=int(data.get("calibration_cases", 0)),
            power_mode=str(data.get("power_mode", "")),
            training=str(data.get("training", "")),
            weight_bits=int(data.get("weight_bits", 0)),
            recovery_epochs=None if (epochs := data.get("recovery_epochs")) is None else int(epochs),
            quantizer=str(data.get("quantizer", "")),
            allocation=str(data.get("allocation", "")),
            elastic=Elastic.from_json(data["elastic"]) if "elastic" in data else NO_ELASTIC,
            recovered=bool(data.get("recovered", False)),
            from_wider=bool(data.get("from_wider", False)),
            shrink=Shrink.from_json(data.get("shrink", {})),
            tile=str(data.get("tile", "")),
            overlap=str(data.get("overlap", "")),
            max_batch=_served(data, "max_batch", MOST_BATCH),
            instances=_served(data, "instances", MOST_INSTANCES),
            storage=storage_of(str(data.get("storage", ""))).text,
            image_codec=str(data.get("image_codec", "")),
        )

    @cached_property
    def digest(self) -> str:
        """16 hex digits that name the variant in files, trials and reports."""
        return digest_of(self.as_json())[:16]

    @cached_property
    def model_digest(self) -> str:
        """Names the variant's torch model. A float model is shared by all targets and precisions, an int8 model from
        training by all targets that follow its plan."""
        trained: dict[str, Any] = {"training": self.training} if self.training else {}
        if self.training and self.plan.rules:
            trained["plan"] = self.plan.as_json()
        if self.training and self.weight_bits:
            trained["weight_bits"] = self.weight_bits
        if self.recovered:
            trained["recovered"] = True
        network = {"width": self.width, "arch": dict(self.arch), **self._allocated, **self._cut_of, **self._left_out}
        return digest_of({**network, **self._recovery, **self._start, **trained, **self._shipped})[:16]

    @property
    def elastic_digest(self) -> str:
        """Names the elastic network of the variant's architecture."""
        return digest_of({"arch": dict(self.arch), **self._cut_of})[:16]

    @property
    def artifact_name(self) -> str:
        """Names the artifact, which is shared by variants that differ only in how it runs."""
        name = f"{self.target}-{self.precision}-{self.model_digest}"
        return f"{name}-{digest_of(self._build_settings)[:8]}" if self._build_settings else name

    def artifact_folder(self, weight_bits: int = 8) -> str:
        """The artifact's folder below ``artifacts``; ``weight_bits`` are those that a board chose, if one did."""
        own = weight_bits == 8 or bool(self.weight_bits)  # the name contains the bits when they are a setting
        return self.artifact_name + ("" if own else f"-weights{weight_bits}")

    @property
    def precisions(self) -> tuple[str, ...]:
        """The model's precision and those of its plan, each once."""
        return tuple(dict.fromkeys((self.precision, *self.plan.precisions)))

    @property
    def label(self) -> str:
        """Short text for people. It is unique within a study that searches no other settings."""
        parts = [self.target, self.recipe, self.width_label, self.shrink.label]
        parts += [*(str(value) for _, value in self.arch), f"t{self.threads}", self.served_label, self.power_mode]
        parts += [self.image_codec]
        return " ".join(part for part in parts if part)

    @property
    def served_label(self) -> str:
        """Text for people: instances and batch, where there are more than one."""
        batch = f"batch{self.max_batch}" if self.max_batch > 1 else ""
        return " ".join(filter(None, (f"{self.instances}inst" if self.instances > 1 else "", batch)))

    @property
    def width_label(self) -> str:
        """Text for people: the width, and what it is shared out by."""
        return f"w{self.width:g}{f'-{self.allocation}' if self.allocation else ''}"

    @property
    def recipe(self) -> str:
        """Text for people: the precision with its plan, quantizer, calibration and training, if set."""
        cases = f"{self.calibration_cases}cal" if self.calibration_cases else ""
        bits = f"{self.weight_bits}bit" if self.weight_bits else ""
        further = "recovered" if self.recovered else ""
        cut = "elastic" if self.elastic else ""
        epochs = "" if self.recovery_epochs is None else f"{self.recovery_epochs}ep"
        tool = f"by {self.quantizer}" if self.quantizer else ""
        tiles = f"tile {self.tile}{f' overlap {self.overlap}' if self.overlap else ''}" if self.tile else ""
        parts = (
            *(self.precision, bits, self.training, cut, epochs, further),
            *(self.plan.label, tool, self.calibration, cases, tiles, f"shipped {self.storage}" if self.storage else ""),
        )
        return " ".join(part for part in parts if part)


def _served(data: Mapping[str, Any], name: str, most: int) -> int:
    """A board opens as many sessions, and makes batches as large, as a variant says."""
    value = int(data.get(name, 1))
    if not 1 <= value <= most:
        raise ValueError(f"variant: {name} is 1 to {most}, but got {value}")
    return value


@dataclass(frozen=True)
class Choices:
    """The choices of a study besides the model's precision.

    ``layers`` (precisions of single layers) and ``calibrations`` are by target; a missing target has none. ``cases`` is
    the number of available calibration cases. ``trained`` are the targets that support models trained to be int8;
    ``seven_bits`` maps a target to the precisions in which it supports 7-bit weights, ``quantizers`` to its quantizers,
    the default first, each with its calibration methods. ``made`` are the plans of budgets by target and name, made for
    its int8 model from calibration cases at the baseline's architecture. ``elastic`` is what allocated widths are
    cut out of. ``from_wider``: trainings start from wider models. ``batched`` are the targets whose artifacts can answer
    several requests at once.
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
    builds are one variant:

    - a precision that the target does not support becomes float32, which is what would be built; of a model that is taken
      as given, every precision becomes that;
    - rules of a plan, quantizers and calibration methods that the target does not support are dropped, and calibration
      methods that the quantizer does not support;
    - the plan of a budget is dropped in a model that it was not made for, as one that leaves out more than channels, whose
      layers have other names;
    - calibration settings are dropped for a model that needs none;
    - training is kept for int8 models only. A trained model may keep layers in float32 by a plan, and needs no
      calibration;
    - recovery epochs are dropped for the baseline's own architecture at full width, which is not recovered;
    - a target whose artifacts answer one request at once has no batches, and neither have volumes that are cut;
    - a model of full width has no allocation, and neither has the uniform one;
    - a model without allocation is not cut out of an elastic network;
    - a model of full width, one that is not trained, one that is cut out of an elastic network and one that leaves out more
      than channels start from no wider one;
    - volumes that are not cut have no overlap;
    - weights of a model that is trained to be int8 are shipped as they are;
    - a student has full width and all of its heads, features, blocks, rank and tokens.
    """
    target = str(params["target"])
    precision = str(params.get("precision", "float32"))
    if precision not in target_precisions[target]:
        precision = AS_GIVEN if AS_GIVEN in target_precisions[target] else "float32"
    arch = dict(arch_defaults)
    arch.update({key: value for key, value in params.items() if key not in _ours(arch_defaults)})
    name = str(params.get("plan", NO_PLAN))
    shrink = Shrink.of(params, arch_defaults)
    as_planned = precision == "int8" and arch == dict(arch_defaults) and not shrink
    made = choices.made.get(target, {}).get(name) if as_planned else None
    plan = (made or choices.plans.get(name, NO_RULES)).allowed(precision, choices.layers.get(target, ()))
    trainable = (
        made is None and precision == "int8" and {*plan.precisions} <= TRAINED_LAYERS and target in choices.trained
    )
    training = "qat" if trainable and params.get("training") == "qat" else ""
    calibrated = not training and any(name in CALIBRATED for name in (precision, *plan.precisions))
    quantizer, calibration, cases = _calibrated(params, target, choices) if calibrated else ("", "", 0)
    narrow = choices.seven_bits.get(target, ())
    can_choose = any(name in narrow for name in (precision, *plan.precisions))
    width = 1.0 if shrink.student else round(float(params.get("width", 1.0)), 6)
    recovers = width < 1.0 or bool(shrink) or arch != dict(arch_defaults)
    allocation = str(params.get("allocation", UNIFORM)) if width < 1.0 else UNIFORM
    elastic = NO_ELASTIC if allocation == UNIFORM else choices.elastic
    tile = tile_of(params.get("tile", 0)).text
    overlap = overlap_of(params.get("overlap", EXACT)) if tile else None
    epochs = int(params["recovery_epochs"]) if recovers and "recovery_epochs" in params else None
    return Variant(
        target=target,
        precision=precision,
        width=width,
        arch=tuple(sorted(arch.items())),
        threads=int(params.get("threads", default_threads)),
        plan=plan,
        calibration=calibration,
        calibration_cases=cases,
        power_mode=str(params.get("power_mode", "")),
        training=training,
        weight_bits=int(params.get("weight_bits", 0)) if can_choose else 0,
        recovery_epochs=epochs,
        quantizer=quantizer,
        allocation="" if allocation == UNIFORM else allocation,
        elastic=elastic,
        from_wider=choices.from_wider and width < 1.0 and epochs != 0 and not elastic and not shrink,
        shrink=shrink,
        tile=tile,
        overlap="" if overlap is None else str(overlap),
        max_batch=int(params.get("max_batch", 1)) if target in choices.batched and not tile else 1,
        instances=int(params.get("instances", 1)),
        storage="" if training else storage_of(params.get("storage", NO_STORAGE)).text,
        image_codec="" if params.get("image_codec", NO_CODEC) == NO_CODEC else str(params["image_codec"]),
    )


def _calibrated(params: Mapping[str, Scalar], target: str, choices: Choices) -> tuple[str, str, int]:
    """Quantizer, calibration method and number of cases, each empty or 0 where it is the target's own."""
    tools = choices.quantizers.get(target, {})
    asked = str(params.get("quantizer", ""))
    quantizer = asked if asked in tuple(tools)[1:] else ""
    offered = tools[quantizer] if quantizer else choices.calibrations.get(target, ())
    asked = str(params.get("calibration", ""))
    cases = int(params.get("calibration_cases", 0))
    return quantizer, asked if asked in offered[1:] else "", cases if cases < choices.cases else 0


def _ours(arch: Collection[str]) -> set[str]:
    """Search parameters that are no keywords of the task's ``build``."""
    return {*DEPLOYMENT_KEYS, *(name for name in SHRINK_KEYS if name not in arch)}
