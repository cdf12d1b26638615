"""The stored result of a run on a board: a measurement, or the failure of a variant.

All times are integer nanoseconds of a monotonic clock, all sizes bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from edgedeploy.records.artifact import Artifact
from edgedeploy.records.board import BoardInfo, Provenance
from edgedeploy.records.draws import SplitDraws
from edgedeploy.records.placements import Placements
from edgedeploy.records.variant import Variant
from edgedeploy.records.weightbits import WeightBits
from edgedeploy.runtime.wire.result import RawSeries
from edgedeploy.runtime.wire.serde import from_json, to_json

SCHEMA_VERSION: Final = 1
TASK_CHANGED: Final = "measured after the task's files changed"
"""How the note begins that such a measurement keeps."""

LIMITS_CHANGED: Final = "measured under other limits of [measure] than the study began with"
"""How the note begins of a measurement that was made after the limits of a valid run were changed."""

ON_CORES: Final = "measured on core"
"""How the note begins of a measurement that had some cores of its board's machine."""

BEYOND_TOLERANCE: Final = "parity: "
"""How the note begins of a measurement whose worst golden case is further from the float model than the tolerance."""

_LATER: Final = ("parity_case", "groups", "draws", "placements", "images")
_KEPT_SCENARIOS: Final = "protocols"  # the name of the field in files of schema 1


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """The fields of a measurement that a file keeps as they stand; files are held to these types."""

    provenance: Provenance
    split: str
    valid: bool
    cause: str | None
    metrics: Mapping[str, float]
    missing: Mapping[str, str]
    cases: Mapping[str, Mapping[str, float | None]]
    baseline_variant: str | None
    parity: Mapping[str, float]
    parity_case: str = ""
    notes: tuple[str, ...]
    created_utc: str
    groups: Mapping[str, int] = field(default_factory=dict)
    draws: Mapping[str, SplitDraws] = field(default_factory=dict)
    placements: Mapping[str, Placements] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Measurement(RawSeries, _Kept):
    """The evidence for one variant on one board: enough to rebuild every number of the report.

    ``metrics`` holds finite numbers only; a metric that could not be measured is in ``missing`` with its reason.
    ``parity`` holds the figures of :class:`edgedeploy.reference.parity.Judged`, ``parity_case`` the id of the worst case.
    ``cases`` maps case id to the task's metrics for that case (None when the task defines none), ``groups`` case id to the
    number of its group where the task names groups, ``draws`` the metrics of the whole split to their values on resampled
    cases, ``placements`` AUROCs to where each case is ranked, ``images`` case id to the bytes of its coded image in a study
    that searches codecs; older files have none of these four. ``valid`` is False for
    a run whose conditions drifted; ``cause`` says how. The raw series are kept beside the results; a layer in
    ``layers`` also names the reference's layer that it computes (``evidence/layers.py``).
    """

    variant: Variant
    artifact: Artifact
    board: BoardInfo
    notes: tuple[str, ...] = ()
    created_utc: str = ""
    weight_bits: WeightBits | None = None
    schema: int = field(default=SCHEMA_VERSION)

    def __post_init__(self) -> None:
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"metric {name} is {value}: a measurement holds finite numbers only")

    @property
    def digest(self) -> str:
        return self.variant.digest

    @property
    def file(self) -> str:
        """The artifact's own file, relative to the study's folder: what is to be shipped."""
        bits = self.weight_bits.bits if self.weight_bits else 8
        return f"artifacts/{self.variant.artifact_folder(bits)}/{self.artifact.entry}"

    def as_json(self) -> dict[str, Any]:
        series = to_json(self.series())
        series[_KEPT_SCENARIOS] = series.pop("scenarios")
        return {
            **series,
            "schema": self.schema,
            "variant": self.variant.as_json(),
            "variant_digest": self.variant.digest,
            "artifact": self.artifact.as_json(),
            "board": self.board.as_json(),
            **to_json({item.name: getattr(self, item.name) for item in fields(_Kept) if self._is_kept(item.name)}),
            "weight_bits": self.weight_bits.as_json() if self.weight_bits else None,
        }

    def _is_kept(self, name: str) -> bool:
        """Fields that came later are left out when they are empty: a file of before is written as it was read."""
        return name not in _LATER or bool(getattr(self, name))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """Raises ``ValueError`` for a schema this version does not know, and for values of another form; ``KeyError``,
        ``TypeError``, ``AttributeError`` or ``OverflowError`` for data that :meth:`as_json` cannot have written."""
        if data["schema"] != SCHEMA_VERSION:  # of a file, `study/migrations.py` has made today's form
            raise ValueError(f"measurement schema {data['schema']!r}, this version reads {SCHEMA_VERSION}")
        read = from_json(_Kept, data, kept=True)
        kept = {item.name: data[item.name] for item in fields(_Kept) if item.name in data}
        return cls(
            **from_json(RawSeries, {**data, "scenarios": data.get(_KEPT_SCENARIOS, {})}, kept=True).series(),
            variant=Variant.from_json(data["variant"]),
            artifact=Artifact.from_json(data["artifact"]),
            board=BoardInfo.from_json(data["board"]),
            **{**kept, "notes": tuple(kept["notes"]), "draws": read.draws, "placements": read.placements},
            weight_bits=WeightBits.from_json(data["weight_bits"]) if data.get("weight_bits") else None,
        )


@dataclass(frozen=True)
class Failure:
    """A variant that gave no number, and why. ``kind`` is the error's class name, ``phase`` where it happened.

    Only failures of the variant itself are stored; a lost board is not one of them.
    """

    variant: Variant
    kind: str
    phase: str
    message: str
    created_utc: str
    schema: int = field(default=SCHEMA_VERSION)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": self.schema,
            "variant": self.variant.as_json(),
            "variant_digest": self.variant.digest,
            "kind": self.kind,
            "phase": self.phase,
            "message": self.message,
            "created_utc": self.created_utc,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Failure:
        return cls(
            variant=Variant.from_json(data["variant"]),
            kind=str(data["kind"]),
            phase=str(data["phase"]),
            message=str(data["message"]),
            created_utc=str(data["created_utc"]),
        )
