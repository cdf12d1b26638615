"""A variant: one point of the search space, in canonical form, named by its digest.

Proposals that would build the same artifact must give the same variant, or the search would evaluate it twice. Only
:func:`~edgedeploy.records.canonical.canonical` turns proposed parameters into a variant.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

from edgedeploy.records.elastic import NO_ELASTIC, Elastic
from edgedeploy.records.precision import AS_GIVEN, NO_RULES, PrecisionPlan
from edgedeploy.records.shrink import NO_SHRINK, Shrink
from edgedeploy.records.storage import storage_of

Scalar = bool | int | float | str

Allocation = Literal["compute", "bytes", "time"]

UNIFORM: Final = "uniform"

BY_TIME: Final = "time"

ALLOCATIONS: Final = (UNIFORM, "compute", "bytes", BY_TIME)
"""How a width is spread over the layers: the same share of channels everywhere, or by the layers' sensitivity so that the
model's multiplications, the bytes of its weights, or the times of its layers, are those of the uniform width."""

PRECISIONS: Final = ("float32", "bfloat16", "float16", "int8", "int8-dynamic", "int8-weights", "int4-weights", AS_GIVEN)
"""Numeric precisions a variant may ask for; a target names the ones it has."""

CALIBRATIONS: Final = ("minmax", "mean-minmax", "percentile", "entropy", "mse")
"""All methods to choose an activation range from calibration cases. A target lists those it has, its default first."""

TRAININGS: Final = ("ptq", "qat")
"""Where an int8 model's ranges come from: calibration of the float model, or training with quantizers."""

NO_PLAN: Final = "none"

NO_CODEC: Final = "none"
"""Images reach the model as they are."""


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

Part = Literal["artifact", "model", "run"]
"""What a setting changes: how an artifact is built of a model, the torch model (and so every artifact of it), or only how
an artifact is run."""


def setting(part: Part, read: Callable[[Any], Any], *, searched: bool = True) -> Mapping[str, Any]:
    """What is told of a field of :class:`Variant` that is left out of its JSON, and so of every digest, where it has its
    default: variants keep their digests when a setting is added. ``read`` makes it of the JSON; ``searched``: it is a
    parameter of the search, by the same name."""
    return {"part": part, "read": read, "searched": searched}


def _at_most(most: int, name: str) -> Callable[[Any], int]:
    """A board opens as many sessions, and makes batches as large, as a variant says."""

    def read(value: Any) -> int:
        if not 1 <= (count := int(value)) <= most:
            raise ValueError(f"variant: {name} is 1 to {most}, but got {count}")
        return count

    return read


def _epochs(value: Any) -> int | None:
    return None if value is None else int(value)


@dataclass(frozen=True, order=True)
class Variant:
    """Architecture, compression, target and runtime settings. A new setting is one field here and one property of
    :class:`edgedeploy.records.canonical.Proposal`.

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
    - ``layer_times``: the layer times that an allocation by time spends (:mod:`edgedeploy.records.layer_times`), by their
      digest; empty where there are none.
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
    plan: PrecisionPlan = field(default=NO_RULES, metadata=setting("artifact", PrecisionPlan.from_json))
    calibration: str = field(default="", metadata=setting("artifact", str))
    calibration_cases: int = field(default=0, metadata=setting("artifact", int))
    power_mode: str = field(default="", metadata=setting("run", str))
    training: str = field(default="", metadata=setting("artifact", str))
    weight_bits: int = field(default=0, metadata=setting("artifact", int))
    recovery_epochs: int | None = field(default=None, metadata=setting("model", _epochs))
    quantizer: str = field(default="", metadata=setting("artifact", str))
    allocation: str = field(default="", metadata=setting("model", str))
    layer_times: str = field(default="", metadata=setting("model", str, searched=False))
    elastic: Elastic = field(default=NO_ELASTIC, metadata=setting("model", Elastic.from_json, searched=False))
    recovered: bool = field(default=False, metadata=setting("model", bool, searched=False))
    from_wider: bool = field(default=False, metadata=setting("model", bool, searched=False))
    shrink: Shrink = field(default=NO_SHRINK, metadata=setting("model", Shrink.from_json, searched=False))
    tile: str = field(default="", metadata=setting("artifact", str))
    overlap: str = field(default="", metadata=setting("artifact", str))
    max_batch: int = field(default=1, metadata=setting("artifact", _at_most(MOST_BATCH, "max_batch")))
    instances: int = field(default=1, metadata=setting("run", _at_most(MOST_INSTANCES, "instances")))
    storage: str = field(default="", metadata=setting("model", lambda value: storage_of(str(value)).text))
    image_codec: str = field(default="", metadata=setting("run", str))

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
            **self._settings("artifact", "model", "run"),
        }

    def _settings(self, *parts: Part) -> dict[str, Any]:
        """The settings of ``parts`` that differ from their defaults, as JSON."""
        values = {name: getattr(self, name) for name, (_, part, _) in SETTINGS.items() if part in parts}
        return {
            name: value.as_json() if hasattr(value, "as_json") else value
            for name, value in values.items()
            if value != SETTINGS[name].default
        }

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
            **{name: row.read(data[name]) for name, row in SETTINGS.items() if name in data},
        )

    @cached_property
    def digest(self) -> str:
        """16 hex digits that name the variant in files, trials and reports."""
        return digest_of(self.as_json())[:16]

    @cached_property
    def model_digest(self) -> str:
        """Names the variant's torch model. A float model is shared by all targets and precisions, an int8 model from
        training by all targets that follow its plan."""
        settings = self._settings("model")
        if self.training:
            made = self._settings("artifact")
            settings |= {name: made[name] for name in ("training", "plan", "weight_bits") if name in made}
        return digest_of({"width": self.width, "arch": dict(self.arch), **settings})[:16]

    @property
    def elastic_digest(self) -> str:
        """Names the elastic network of the variant's architecture."""
        cuts = {"elastic": self.elastic.as_json()} if self.elastic else {}
        return digest_of({"arch": dict(self.arch), **cuts})[:16]

    @property
    def artifact_name(self) -> str:
        """Names the artifact, which is shared by variants that differ only in how it runs."""
        name = f"{self.target}-{self.precision}-{self.model_digest}"
        settings = self._settings("artifact")
        return f"{name}-{digest_of(settings)[:8]}" if settings else name

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
        parts += [self.arch_label, f"t{self.threads}", self.served_label, self.power_mode, self.image_codec]
        return " ".join(part for part in parts if part)

    @property
    def model_label(self) -> str:
        """Text for people, of the torch model: what of the label :attr:`model_digest` hangs on. A float model is that of all
        targets and precisions, so it names none."""
        epochs = "" if self.recovery_epochs is None else f"{self.recovery_epochs}ep"
        trained = (self.precision, self.training) if self.training else ("elastic",) if self.elastic else ()
        parts = (self.width_label, self.shrink.label, self.arch_label, *trained, epochs, "recovered" * self.recovered)
        return " ".join(part for part in parts if part)

    @property
    def arch_label(self) -> str:
        """Text for people: the architecture's values. Words stand alone; a number or a boolean says of what it is."""
        return " ".join(value if isinstance(value, str) else f"{name}={_plainly(value)}" for name, value in self.arch)

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


def _plainly(value: Scalar) -> str:
    """As a study file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Setting(NamedTuple):
    default: Any
    part: Part
    read: Callable[[Any], Any]


SETTINGS: Final = {
    item.name: _Setting(item.default, item.metadata["part"], item.metadata["read"])
    for item in fields(Variant)
    if item.metadata
}
"""Every :func:`setting` of a variant."""

DEPLOYMENT_KEYS: Final = (
    *("target", "precision", "threads", "width"),
    *(item.name for item in fields(Variant) if item.metadata.get("searched")),
)
"""Search parameters that edgedeploy itself understands, besides those of :mod:`edgedeploy.records.shrink`; every other one
belongs to the task's architecture."""
