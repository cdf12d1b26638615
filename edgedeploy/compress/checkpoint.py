"""A training on disk, so that a kill costs one epoch at most and a resumed training ends as an undisturbed one.

    32 bytes   SHA-256 of all that follows
    the rest   what torch saved: plain values and tensors, read back without running anything (``weights_only``)

A checkpoint belongs to one training: the recipe, the architecture, the precision and the teacher's weights are in its
identity. One of another training, or a damaged one, is set aside and never believed. Imports torch inside functions.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgedeploy.files import write_atomic
from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.records.variant import Scalar, digest_of

if TYPE_CHECKING:
    from torch import nn

SCHEMA: Final = 1
"""Of the file, and of the training loop: a loop that trains otherwise may not go on with an older one's state."""

DIGEST_BYTES: Final = 32
ASIDE: Final = ".aside"


@dataclass(frozen=True)
class TrainState:
    """A training between two steps: ``step`` of epoch ``epoch`` (both from 0) comes next. ``losses`` are those of the steps
    of that epoch, ``mean`` is the mean of the epoch before. ``epoch_rng`` and ``rng`` are torch's random state at the
    epoch's begin and now: batches may draw from it, and layers do (dropout)."""

    model: Mapping[str, Any]
    optimiser: Mapping[str, Any]
    epoch: int
    step: int
    steps: int
    losses: list[float]
    mean: float
    epoch_rng: Any
    rng: Any
    wall_s: float
    cpu_s: float


def identity_of(
    model: nn.Module,
    recipe: TrainRecipe,
    precision: str,
    arch: Mapping[str, Scalar],
    teacher: nn.Module | None,
    settings: Mapping[str, object],
) -> str:
    """Names the training. The model's first weights are not in it: a pass over the data may have decided their last bits."""
    return digest_of(
        {
            "schema": SCHEMA,
            "recipe": {**asdict(recipe), "early_arch": dict(recipe.early_arch)},
            "precision": precision,
            "arch": dict(arch),
            "model": [[name, *_kind(value)] for name, value in model.state_dict().items()],
            "teacher": _digest_of_weights(teacher) if teacher is not None and recipe.distill_weight else None,
            "settings": dict(settings),
        }
    )


def _kind(value: Any) -> list[object]:
    """Shape and type of a tensor; a module's extra state may be anything."""
    return [list(value.shape), str(value.dtype)] if hasattr(value, "shape") else [type(value).__name__]


def _digest_of_weights(model: nn.Module) -> str:
    import torch

    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(f"{name} {_kind(value)}".encode())
        if isinstance(value, torch.Tensor):
            found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def write_checkpoint(path: Path, identity: str, state: TrainState) -> None:
    """Whole or not at all. Raises ``OSError``."""
    import torch

    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, "identity": identity, **vars(state)}, buffer)
    content = buffer.getvalue()
    write_atomic(path, hashlib.sha256(content).digest() + content)


def read_checkpoint(path: Path, identity: str, note: Callable[[str], None]) -> TrainState | None:
    """The state that ``path`` holds of the training ``identity``; None when there is none, and when there is one that is
    not to be used: that is moved to ``PATH.aside``, and ``note`` hears why."""
    import torch

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        note(f"checkpoint {path.name} cannot be read ({exc}): the training begins anew")
        return None
    given, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    reason = "it is damaged"
    if hashlib.sha256(content).digest() == given:
        try:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            if found.pop("schema") == SCHEMA and found.pop("identity") == identity:
                return TrainState(**found)
            reason = "it is of another recipe, architecture, precision or teacher"
        except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError, KeyError):
            reason = "it is no checkpoint of this version"
    aside = path.with_name(path.name + ASIDE)
    try:
        path.replace(aside)
        kept = f"It is set aside as {aside.name}"
    except OSError as exc:
        kept = f"It cannot be set aside as {aside.name} ({exc})"
    note(f"checkpoint {path.name} is not used: {reason}. {kept}, the training begins anew")
    return None


def drop_checkpoint(path: Path) -> None:
    """Remove what a finished training leaves. One that cannot be removed is of no further use, and never believed."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
