"""Weights of a float torch model in a file, and what such a file tells of the model's shapes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.compress.prune import channel_widths, outputs_of
from edgedeploy.errors import DataError
from edgedeploy.files import write_atomic

if TYPE_CHECKING:
    from torch import nn


def save_weights(model: nn.Module, path: Path) -> None:
    """The model's ``state_dict``, whole or not at all."""
    import torch

    buffer = io.BytesIO()
    tensors = {
        name: value.contiguous() if hasattr(value, "contiguous") else value
        for name, value in model.state_dict().items()
    }
    torch.save(tensors, buffer)
    write_atomic(path, buffer.getvalue())


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Fill ``model`` in place from :func:`save_weights` and return it in eval mode.

    Reads tensors only: a file whose pickle would run code is refused. Raises ``DataError`` for a file that is
    missing, damaged, or of another architecture.
    """
    with _of_model(path, model):
        model.load_state_dict(read_weights(path, model))
    return model.eval()


def widths_in(path: Path, model: nn.Module) -> dict[str, int]:
    """Output channels of each layer of ``model`` in a file of :func:`save_weights`. Raises ``DataError``."""
    weights = read_weights(path, model)
    found = {}
    for name, full in channel_widths(model).items():
        weight = weights.get(f"{name}.weight")
        found[name] = full if weight is None else outputs_of(model.get_submodule(name), tuple(weight.shape))
    return found


def parameters_in(path: Path, model: nn.Module) -> int:
    """How many parameters of ``model`` a file of :func:`save_weights` has. Raises ``DataError``."""
    weights = read_weights(path, model)
    return sum(weights[name].numel() for name, _ in model.named_parameters() if name in weights)


def read_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    import torch

    with _of_model(path, model):
        weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


@contextmanager
def _of_model(path: Path, model: nn.Module) -> Iterator[None]:
    import pickle

    remedy = "Delete the file: the next run makes the model again"
    try:
        yield
    except FileNotFoundError as exc:
        raise DataError(f"weights {path}", "there is no such file", "Train the baseline first") from exc
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as exc:
        found = next(iter(str(exc).splitlines()), type(exc).__name__)
        raise DataError(f"weights {path.name} for {type(model).__name__}", found[:400], remedy) from exc
