"""Trained weights that a user brings in a file: a ``state_dict``, a whole checkpoint that holds one, or safetensors.

A file of torch's may hold any Python object, and reading one would run its code: tensors and plain values alone are read
(``weights_only``), anything else is refused with the way out. What wrappers add to names is taken away where the names
then fit the model: ``module.`` (DataParallel), ``_orig_mod.`` (torch.compile), ``model.`` (Lightning).
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from edgedeploy.errors import DataError, SpecError, TargetUnavailable, nearest
from edgedeploy.records.weights import BaselineWeights
from edgedeploy.runtime.files import sha256_file

if TYPE_CHECKING:
    import torch
    from torch import nn

    Weights = Mapping[str, torch.Tensor]
else:
    Weights = Mapping[str, Any]

LARGEST_BYTES: Final = 16 << 30
"""Of a file, also unpacked: no network for a board comes near it."""

MOST_TENSORS: Final = 100_000
MOST_DEPTH: Final = 3
"""How deep a checkpoint's tables are looked into for weights."""

SHOWN: Final = 4
"""Names that an error lists before it counts the rest."""

USUAL_KEYS: Final = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
"""Where checkpoints keep the weights: looked at first when those of no key fit."""

LIGHTNING: Final = "model"
_GLOBAL: Final = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True)
class WeightsFile:
    """Weights in the file ``path``, under ``key`` (empty: those of the only key that fits)."""

    path: Path
    key: str = ""

    def load_into(self, model: nn.Module) -> BaselineWeights:
        """Fill ``model`` in place, put it into evaluation mode, and say what its weights are.

        Raises ``DataError`` for a file that cannot be read, holds no such weights or weights of another model, and
        ``SpecError`` for a key that it has not or has to be told.
        """
        name = self.path.name
        asked = f"checkpoint {name}"
        content = _read(self.path, asked)
        where, weights = _chosen(model, content, self.key, asked)
        _load(model, weights, asked if not where else f"{asked} ({where})")
        return BaselineWeights("checkpoint", name, where, sha256_file(self.path))


def check_weights(path: Path) -> None:
    """Raises ``DataError`` where no site could take weights from ``path``: it cannot be read, or holds no tensor.
    Whether they are a network's says :meth:`WeightsFile.load_into`."""
    asked = f"checkpoint {path.name}"
    if next(_tables_of_weights(_read(path, asked)), None) is None:
        raise DataError(asked, "it holds no tensors", "torch.save(model.state_dict(), PATH) saves a model's")


# -- reading


def _read(path: Path, asked: str) -> Any:
    """What the file holds: tensors in plain tables and lists. Raises ``DataError``, ``TargetUnavailable``."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device never ends
            raise DataError(asked, "it is no regular file", "Name a file of weights")
        size_bytes = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(16)
    except FileNotFoundError:
        raise DataError(asked, f"no file at {path}", "Paths are relative to the study file") from None
    except (OSError, ValueError) as exc:  # ValueError: a name with a null byte
        found = getattr(exc, "strerror", None) or str(exc)
        raise DataError(asked, found, "Name the file itself, and see that it can be read") from None
    if size_bytes > LARGEST_BYTES:
        _too_large(asked, size_bytes)
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= header <= size_bytes - 8:
        return _read_safetensors(path, asked)
    return _read_torch(path, asked)


def _too_large(asked: str, size_bytes: int) -> NoReturn:
    found = f"it holds {size_bytes / 2**30:.1f} GiB, and at most {LARGEST_BYTES >> 30} GiB are read"
    raise DataError(asked, found, "Save the weights alone: torch.save(model.state_dict(), PATH)")


def _read_safetensors(path: Path, asked: str) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        found, remedy = "it needs the package safetensors", "pip install 'edgedeploy[study]'"
        raise TargetUnavailable(asked, found, remedy) from None
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as exc:
        raise DataError(asked, f"it is damaged: {_first_line(exc)}", "Take a whole copy of it") from None


def _read_torch(path: Path, asked: str) -> Any:
    import torch

    if zipfile.is_zipfile(path):
        _check_archive(path, asked)
    try:
        with torch.serialization.safe_globals(_plain_values()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        _refuse(exc, path, asked)
    except Exception as exc:  # bytes that are no pickle lead the unpickler into whatever they lead it into
        if not zipfile.is_zipfile(path):
            _refuse(pickle.UnpicklingError(), path, asked)
        remedy = "Save it again, and take a whole copy: torch.save(model.state_dict(), PATH)"
        raise DataError(asked, f"torch cannot read it: {_first_line(exc)}", remedy) from None


def _plain_values() -> list[Any]:
    """What whole checkpoints hold beside tensors all the time and what runs nothing: the script's arguments, paths, and
    numbers of numpy (under the names of numpy 1 and 2)."""
    import argparse
    import pathlib

    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    numbers = [scalar, (scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype]
    types = [type(np.dtype(name)) for name in ("float64", "float32", "float16", "int64", "int32", "bool")]
    return [argparse.Namespace, pathlib.PosixPath, *numbers, *types]


def _check_archive(path: Path, asked: str) -> None:
    """Raises ``DataError`` for an archive that unpacks to too much, or holds a program of TorchScript."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as exc:
        raise DataError(asked, f"it is damaged: {_first_line(exc)}", "Take a whole copy of it") from None
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > LARGEST_BYTES:
        _too_large(asked, unpacked)
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        remedy = f'torch.save(torch.jit.load("{path.name}").state_dict(), "weights.pt") saves its weights'
        raise DataError(asked, "it holds a program of TorchScript, which is not run here", remedy)


def _refuse(exc: pickle.UnpicklingError, path: Path, asked: str) -> NoReturn:
    named = _GLOBAL.search(str(exc))
    if named is None:
        found = f"it is neither a file of torch.save nor safetensors ({path.stat().st_size} bytes)"
        remedy = 'An ONNX file is a task of its own: kind = "onnx", model = "..."' if path.suffix == ".onnx" else ""
        raise DataError(asked, found, remedy or "torch.save(model.state_dict(), PATH) makes one") from None
    found = (
        f"it holds a Python object ({named[1]}) beside tensors: to read that runs code, which no file of weights may"
    )
    remedy = (
        'Save the tensors alone: torch.save(model.state_dict(), "weights.pt"). Of a file that you trust: '
        f'torch.save(torch.load("{path.name}", weights_only=False)["state_dict"], "weights.pt")'
    )
    raise DataError(asked, found, remedy) from None


def _first_line(exc: Exception) -> str:
    return next(iter(str(exc).splitlines()), type(exc).__name__)[:200]


# -- finding the weights in a checkpoint


def _chosen(model: nn.Module, content: Any, key: str, asked: str) -> tuple[str, Weights]:
    """The key and the weights that are meant, named as the model names them."""
    if key:
        return key, _named_for(model, _under(content, key, asked))
    if _is_weights(content):
        return "", _named_for(model, content)
    found = dict(_tables_of_weights(content))
    if not found:
        held = f"keys {_listed(map(str, content))}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise DataError(
            asked, f"it holds no table of tensors, but {held}", "torch.save(model.state_dict(), PATH) makes one"
        )
    named = {where: _named_for(model, weights) for where, weights in found.items()}
    fitting = [where for where, weights in named.items() if not _misfit(model, weights)]
    usual = [where for where in USUAL_KEYS if where in named]
    if len(fitting) > 1 or (not fitting and len(usual or named) > 1):
        many = f"{len(fitting)} of them fit" if fitting else "none of them fits"
        remedy = f'Name the one you mean: checkpoint_key = "{(fitting or usual or list(named))[0]}"'
        raise SpecError(asked, f"it holds weights under {_listed(fitting or named)}, and {many} the model", remedy)
    where = (fitting or usual or list(named))[0]
    return where, named[where]


def _under(content: Any, key: str, asked: str) -> Weights:
    """Raises ``SpecError`` when there are no weights under ``key``, whose dots lead into tables of tables."""
    place, left = content, key
    while left and isinstance(place, Mapping):
        step = left if left in place else left.partition(".")[0]
        if step not in place:
            break
        place, left = place[step], left[len(step) + 1 :]
    if not left and _is_weights(place):
        return place  # type: ignore[no-any-return]
    tables = [where or "(the whole file: leave checkpoint_key out)" for where, _ in _tables_of_weights(content)]
    found = f"nothing is under {key!r}" if left else f"what is under {key!r} is no table of tensors"
    raise SpecError(f"{asked}: checkpoint_key", found, nearest(key, tables) if tables else "It holds no weights at all")


def _is_weights(value: Any) -> bool:
    """A table of tensors by name; a module's extra state may be anything."""
    import torch

    if not isinstance(value, Mapping) or not 0 < len(value) <= MOST_TENSORS:
        return False
    named = [(name, item) for name, item in value.items() if not str(name).endswith("_extra_state")]
    return bool(named) and all(isinstance(name, str) and isinstance(item, torch.Tensor) for name, item in named)


def _tables_of_weights(content: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, Weights]]:
    if _is_weights(content):
        yield where, content
    elif isinstance(content, Mapping) and depth < MOST_DEPTH:
        for name, value in content.items():
            if isinstance(name, str):
                yield from _tables_of_weights(value, f"{where}.{name}" if where else name, depth + 1)


# -- fitting names


def _named_for(model: nn.Module, weights: Weights) -> Weights:
    """The weights without what wrappers put before their names, as far as they then fit better."""
    unwrapped = {".".join(part for part in name.split(".") if part != "_orig_mod"): w for name, w in weights.items()}
    candidates: list[Weights] = [weights, unwrapped]
    for prefix in ("module.", f"{LIGHTNING}.", f"{LIGHTNING}.module.", f"module.{LIGHTNING}."):
        candidates.append({n.removeprefix(prefix): w for n, w in unwrapped.items() if n.startswith(prefix)})
    return min((item for item in candidates if item), key=lambda item: len(_misfit(model, item)))


def _misfit(model: nn.Module, weights: Weights) -> dict[str, str]:
    """What keeps the weights from being the model's, by tensor."""
    own = model.state_dict()
    found = {name: "unexpected" for name in weights if name not in own}
    for name, tensor in own.items():
        if name not in weights:
            if not _is_known(name, own, weights):
                found[name] = "missing"
        elif getattr(weights[name], "shape", None) != getattr(tensor, "shape", None):
            found[name] = f"{list(weights[name].shape)} in the file, {list(tensor.shape)} in the model"
        elif not _is_of_kind(weights[name], tensor):
            found[name] = f"{_kind(weights[name])} in the file, {_kind(tensor)} in the model"
    return found


def _is_of_kind(weight: Any, own: Any) -> bool:
    """Whether ``weight`` can stand for ``own`` as it is: floats of any width for floats. Codes of a quantized model without
    their scales, and complex numbers without their imaginary part, would be copied as other numbers."""
    import torch

    if not (isinstance(weight, torch.Tensor) and isinstance(own, torch.Tensor)):
        return True
    plain = weight.layout == torch.strided and not weight.is_quantized and weight.device.type != "meta"
    alike = weight.is_floating_point() == own.is_floating_point() and weight.is_complex() == own.is_complex()
    return plain and alike


def _kind(tensor: Any) -> str:
    """The type of its numbers, and what keeps them from being plain ones."""
    layout = str(tensor.layout).removeprefix("torch.")
    odd = "without data" if tensor.device.type == "meta" else "" if layout == "strided" else layout
    return " ".join(part for part in (str(tensor.dtype).removeprefix("torch."), odd) if part)


def _is_known(missing: str, own: Mapping[str, Any], weights: Weights) -> bool:
    """Counters that older torch did not save, and tensors that share their memory with one that is there (tied weights)."""
    if missing.endswith(("num_batches_tracked", "_extra_state")):
        return True
    place = own[missing].data_ptr()
    return place != 0 and any(name in weights and own[name].data_ptr() == place for name in own if name != missing)


def _load(model: nn.Module, weights: Weights, asked: str) -> None:
    import torch

    asked = f"{asked} for {type(model).__name__}"
    own = model.state_dict()
    odd_kinds = {name for name, w in weights.items() if name in own and not _is_of_kind(w, own[name])}
    if odd_kinds:
        raise DataError(asked, _misfit_text(model, weights, odd_kinds), _OTHER_NUMBERS)
    try:
        odd = model.load_state_dict(dict(weights), strict=False)  # the model's own hooks may translate older names
        failed = {name for name in odd.missing_keys if not _is_known(name, model.state_dict(), weights)}
        failed |= {name for name in odd.unexpected_keys if not name.endswith("_extra_state")}
    except (RuntimeError, AttributeError, TypeError, KeyError) as exc:
        failed = {_first_line(exc)}
    if failed:
        raise DataError(asked, _misfit_text(model, weights, failed), _OTHER_MODEL)
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            found = f"{name} holds NaN or Inf: it was saved by a training that had diverged"
            raise DataError(asked, found, "Take the checkpoint of an earlier epoch")
    model.eval()


_OTHER_NUMBERS: Final = "Save the float weights, as plain tensors: torch.save(model.state_dict(), PATH)"
_OTHER_MODEL: Final = "It has to be of what build() makes with the first value of each keyword of the architecture"


def _misfit_text(model: nn.Module, weights: Weights, failed: set[str]) -> str:
    misfit = _misfit(model, weights) or dict.fromkeys(sorted(failed), "refused")
    kinds = {
        kind: [name for name, told in misfit.items() if told == kind] for kind in ("missing", "unexpected", "refused")
    }
    parts = [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]
    shapes = [f"{name} ({told})" for name, told in misfit.items() if told not in kinds]
    if shapes:
        parts.append(f"other shape or numbers: {_listed(shapes)}")
    own = model.state_dict()
    fit = sum(name in weights and name not in misfit for name in own)
    return f"{fit} of the model's {len(own)} tensors fit; {'; '.join(parts)}"


def _listed(names: Any) -> str:
    found = list(names)
    rest = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + rest
