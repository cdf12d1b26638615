"""Training checkpoints: a killed training loses one epoch at most, and a resumed one ends as an undisturbed one would.

    32 bytes   SHA-256 of all that follows
    the rest   what torch saved: plain values and tensors, read back without running any code (``weights_only``)

A checkpoint belongs to one training. Its identity covers the recipe, the architecture, the precision and the teacher's
weights. A damaged checkpoint, or one of another training, is moved aside and never used. Imports torch inside
functions.
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
"""Version of the file format and of the training loop: a changed loop must not resume from an older loop's state."""

DIGEST_BYTES: Final = 32
ASIDE: Final = ".aside"


@dataclass(frozen=True)
class TrainState:
    """A training between two steps.

    ``step`` of epoch ``epoch`` (both count from 0) comes next. ``losses`` are the losses of the steps done in that
    epoch; ``mean`` is the mean loss of the epoch before. ``epoch_rng`` and ``rng`` are torch's random state when the
    epoch began and now: batches may draw from it, and dropout does.
    """

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
    """A digest that names the training. It leaves out the model's initial weights: their last bits can differ between
    runs where a pass over the data computed them."""
    return digest_of(
        {
            "schema": SCHEMA,
            "recipe": {**asdict(recipe), "early_arch": dict(recipe.early_arch)},
            "precision": precision,
            "arch": dict(arch),
            "model": [[name, *_kind(value)] for name, value in model.state_dict().items()],
            "teacher": digest_of_weights(teacher) if teacher is not None and recipe.distill_weight else None,
            "settings": dict(settings),
        }
    )


def _kind(value: Any) -> list[object]:
    """Shape and type of a tensor; a module's extra state may be anything."""
    return [list(value.shape), str(value.dtype)] if hasattr(value, "shape") else [type(value).__name__]


def digest_of_weights(model: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of a model's tensors."""
    import torch

    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(f"{name} {_kind(value)}".encode())
        if isinstance(value, torch.Tensor):
            found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def write_checkpoint(path: Path, identity: str, state: TrainState) -> None:
    """Whole or not at all. Raises ``OSError`` or ``StorageError``."""
    import torch

    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, "identity": identity, **vars(state)}, buffer)
    content = buffer.getvalue()
    write_atomic(path, hashlib.sha256(content).digest() + content)


def read_checkpoint(path: Path, identity: str, note: Callable[[str], None]) -> TrainState | None:
    """The saved state of the training ``identity``, or None when ``path`` does not exist or cannot be used.

    A checkpoint that cannot be used is moved to ``PATH.aside``, and ``note`` is called with the reason.
    """
    import torch

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        note(f"checkpoint {path.name} cannot be read ({exc}): the training starts from the beginning")
        return None
    given, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    reason = "it is damaged"
    if hashlib.sha256(content).digest() == given:
        try:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            if found.pop("schema") == SCHEMA and found.pop("identity") == identity:
                return TrainState(**found)
            reason = "it belongs to another recipe, architecture, precision or teacher"
        except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError, KeyError):
            reason = "this version cannot read its format"
    aside = path.with_name(path.name + ASIDE)
    try:
        path.replace(aside)
        kept = f"It was moved to {aside.name}"
    except OSError as exc:
        kept = f"It could not be moved to {aside.name} ({exc})"
    note(f"checkpoint {path.name} is not used: {reason}. {kept}; the training starts from the beginning")
    return None


def drop_checkpoint(path: Path) -> None:
    """Remove the checkpoint of a finished training. A failure to remove it does no harm: nothing reads it again."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
