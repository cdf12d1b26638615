"""A variant: one point of the search space, in canonical form, named by its digest.

Two proposals that would build the same artifact have to be the same variant, or the search would pay twice.
:func:`canonical` is the only way from proposed parameters to a variant.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Scalar = bool | int | float | str

PRECISIONS: Final = ("float32", "bfloat16", "float16", "int8", "int8_dynamic")
"""Numeric precisions a variant may ask for; a target names the ones it has."""

DEPLOYMENT_KEYS: Final = ("target", "precision", "threads", "width")
"""Search parameters that edgedeploy itself understands; every other one belongs to the task's architecture."""


def canonical_json(value: object) -> str:
    """Deterministic JSON text: sorted keys, no white space, NaN and Inf refused (``ValueError``)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest_of(value: object) -> str:
    """SHA-256 of the canonical JSON, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@dataclass(frozen=True, order=True)
class Variant:
    """Architecture, compression, target and runtime settings.

    ``arch`` holds the task's own keywords as sorted pairs (hashable); ``width`` is the share of channels that
    structured pruning keeps (1.0 is unpruned); ``threads`` the intra-op threads of the session.
    """

    target: str
    precision: str
    width: float
    arch: tuple[tuple[str, Scalar], ...]
    threads: int

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
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Variant:
        return cls(
            target=str(data["target"]),
            precision=str(data["precision"]),
            width=float(data["width"]),
            arch=tuple(sorted(data["arch"].items())),
            threads=int(data["threads"]),
        )

    @property
    def digest(self) -> str:
        """16 hex digits that name the variant in files, trials and reports."""
        return digest_of(self.as_json())[:16]

    @property
    def model_digest(self) -> str:
        """Names the float torch model behind the variant: shared by all of its targets and precisions."""
        return digest_of({"width": self.width, "arch": dict(self.arch)})[:16]

    @property
    def label(self) -> str:
        """Short text for people, unique inside a study that searches no other settings."""
        arch = " ".join(str(value) for _, value in self.arch)
        return f"{self.target} {self.precision} w{self.width:g} {arch} t{self.threads}".replace("  ", " ")


def canonical(
    params: Mapping[str, Scalar],
    *,
    arch_defaults: Mapping[str, Scalar],
    target_precisions: Mapping[str, tuple[str, ...]],
    default_threads: int,
) -> Variant:
    """The variant that ``params`` stands for.

    Arguments that were not proposed take the baseline's value. A precision that the target does not have stands for
    float32 there: that is what would be built, and the variant says so, so two such proposals are one variant.
    """
    target = str(params["target"])
    precision = str(params.get("precision", "float32"))
    if precision not in target_precisions[target]:
        precision = "float32"
    arch = dict(arch_defaults)
    arch.update({key: value for key, value in params.items() if key not in DEPLOYMENT_KEYS})
    return Variant(
        target=target,
        precision=precision,
        width=round(float(params.get("width", 1.0)), 6),
        arch=tuple(sorted(arch.items())),
        threads=int(params.get("threads", default_threads)),
    )
