"""Trained weights as federated training leaves them, as one plain file that every site reads: tensors by name.

- Flower: lists of arrays without names (``.npz`` as its strategies save them, keys ``arr_0``, ``arr_1`` or ``0``, ``1``,
  ...), which are the network's tensors in the order of its ``state_dict``; or by name.
- NVFLARE: ``FL_global_model.pt`` (tensors or arrays by name under ``model``, beside ``train_conf``) and ``.npz`` by name.
- ``.npy`` with the one array of a network that has one.

Files may be anybody's: nothing in them is run (``weights_only``, ``allow_pickle=False``). What torch and safetensors save is
read by the sites as it is.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgedeploy.compress.weights_file import check_weights
from edgedeploy.errors import DataError, TargetUnavailable

MOST_BYTES: Final = 4 << 30
MOST_ARRAYS: Final = 100_000
_PLACE: Final = re.compile(r"(?:arr_|array_|layer_)?([0-9]{1,6})")
_OF_TASK: Final = "It has to be of the network that the task builds"


def plain_weights(path: Path, like: Path | None = None) -> bytes | None:
    """The file ``path`` as safetensors; None for one that sites read as it is, which is read here too, so that no site is
    asked for what nobody can read. ``like`` is any file of weights of the same network: what gives a nameless list
    its names and shapes.

    Raises ``DataError`` where a file cannot be read or holds no weights, where names are needed and ``like`` is
    None, and for the first array that does not fit.
    """
    asked = f"checkpoint {path.name}"
    if path.suffix in (".npz", ".npy"):
        arrays = _numpy(path, asked)
    elif (content := _torch(path)) is not None and _is_nvflare(content):
        arrays, asked = dict(content["model"]), f"{asked} (model)"
    else:
        check_weights(path)
        return None
    own = _names(like) if like is not None else None
    if own is None and is_list(arrays):
        found = f"its {len(arrays)} arrays have no names"
        raise DataError(asked, found, 'Name a file of weights of the same network: like = "initial.pt"')
    return packed(named(arrays, own, asked) if own is not None else arrays, asked)


def is_list(arrays: Mapping[str, Any]) -> bool:
    """Whether all names are places in a list."""
    return all(isinstance(name, str) and _PLACE.fullmatch(name) for name in arrays)


def named(arrays: Mapping[str, Any], own: Mapping[str, Any], asked: str) -> dict[str, Any]:
    """``arrays`` by the names of ``own``, a network's ``state_dict``: as they are named, or a list in its order. Raises
    ``DataError`` that names the first misfit."""
    if is_list(arrays) and not set(arrays) & set(own):
        places = {name: int(_PLACE.fullmatch(name)[1]) for name in arrays}  # type: ignore[index]
        ordered = sorted(arrays, key=places.__getitem__)
        first = min(places.values(), default=0)
        if [places[name] for name in ordered] != [*range(first, first + len(ordered))] or first > 1:
            found = f"its places are {', '.join(ordered[:8])}{' ...' if len(ordered) > 8 else ''}: one is missing, or double"
            raise DataError(asked, found, "Save the whole list: numpy.savez(PATH, *arrays)")
        return _in_order([arrays[name] for name in ordered], own, asked)
    for place, (name, tensor) in enumerate(own.items()):
        if name not in arrays:
            raise DataError(asked, f"it has no {name} {list(tensor.shape)} (tensor {place} of {len(own)})", _OF_TASK)
        _check(name, arrays[name], tensor, asked)
    odd = next((name for name in arrays if name not in own), None)
    if odd is not None:
        raise DataError(asked, f"the network has no {odd}", _OF_TASK)
    return {name: arrays[name] for name in own}


def _in_order(arrays: list[Any], own: Mapping[str, Any], asked: str) -> dict[str, Any]:
    for place, (name, tensor) in enumerate(own.items()):
        if place >= len(arrays):
            found = f"it has {len(arrays)} arrays, and {name} {list(tensor.shape)} would be number {place}"
            raise DataError(asked, found, "Save all of state_dict(), buffers too, in its order")
        _check(f"{name} (array {place})", arrays[place], tensor, asked)
    if len(arrays) > len(own):
        raise DataError(asked, f"it has {len(arrays)} arrays, and the network {len(own)} tensors", _OF_TASK)
    return dict(zip(own, arrays, strict=True))


def _check(name: str, array: Any, tensor: Any, asked: str) -> None:
    if not hasattr(array, "shape"):
        raise DataError(asked, f"{name} is no array", "Save plain arrays: numpy.savez(PATH, *arrays)")
    if tuple(array.shape) != tuple(tensor.shape):
        found = f"{name} is {list(array.shape)} in the file and {list(tensor.shape)} in the network"
        raise DataError(asked, found, f"{_OF_TASK}, in the order of its state_dict")


def packed(arrays: Mapping[str, Any], asked: str) -> bytes:
    """As safetensors: equal arrays give equal bytes. Raises ``DataError`` for what are no numbers, and for NaN and Inf."""
    import numpy as np

    try:
        from safetensors.numpy import save
    except ModuleNotFoundError:
        raise TargetUnavailable(asked, "it needs the package safetensors", "pip install 'edgedeploy[study]'") from None
    plain = {}
    if sum(4 * math.prod(getattr(array, "shape", ())) for array in arrays.values()) > MOST_BYTES:
        raise DataError(asked, f"its arrays have more than {MOST_BYTES // 4} numbers", "Save the weights alone")
    for name, array in arrays.items():
        if not isinstance(name, str):
            raise DataError(asked, f"an array is named {name!r}"[:200], "Save a state_dict, whose names are texts")
        try:
            values = np.asarray(array.detach().numpy() if hasattr(array, "detach") else array, order="C")
        except (TypeError, RuntimeError, NotImplementedError):
            found = f"{name} holds {array.dtype} in a form that is no plain array"
            raise DataError(asked, found, "Save dense float32 or float16 on the CPU") from None
        if values.dtype.kind not in "fiub" or values.dtype.itemsize > 8:
            raise DataError(asked, f"{name} holds {values.dtype}, which are no numbers", "Save plain arrays")
        with np.errstate(over="ignore"):  # of float64: the network has float32
            finite = values.dtype.kind != "f" or np.isfinite(values.astype(np.float32)).all()
        if not finite:
            found = f"{name} holds NaN, Inf or more than float32 does: it was saved by a training that had diverged"
            raise DataError(asked, found, "Take an earlier round")
        plain[name] = values
    return save(plain)


def _names(path: Path) -> dict[str, Any]:
    """Name to tensor of a file of weights. Raises ``DataError``."""
    content = _torch(path)
    if isinstance(content, Mapping) and content and all(hasattr(value, "shape") for value in content.values()):
        return dict(content)
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        return dict(load_file(path))
    except (ModuleNotFoundError, SafetensorError, OSError, ValueError) as exc:
        found = f"it is no plain file of weights ({str(exc)[:100]})"
        raise DataError(f"like = {path.name}", found, "torch.save(model.state_dict(), PATH) makes one") from None


def _numpy(path: Path, asked: str) -> dict[str, Any]:
    """The arrays of a ``.npz`` by name, or the one of a ``.npy``. Raises ``DataError``."""
    import numpy as np

    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(asked, f"it has more than {MOST_BYTES} bytes", "Save the weights alone")
        if path.suffix == ".npy":
            return {"0": np.load(path, allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if len(entries) > MOST_ARRAYS or sum(entry.file_size for entry in entries) > MOST_BYTES:
            raise DataError(asked, "it unpacks to too much", "Save the weights alone")
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except FileNotFoundError:
        raise DataError(asked, f"no file at {path}", "Name the file that the training wrote") from None
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zlib.error, zipfile.BadZipFile) as exc:
        found = "it holds Python objects, which are not read" if "pickle" in str(exc) else f"it is damaged ({exc})"
        raise DataError(asked, found[:200], "Save plain arrays: numpy.savez(PATH, *arrays)") from None


def _is_nvflare(content: Any) -> bool:
    """Whether it is the file of NVFLARE's persistor."""
    model = content.get("model") if isinstance(content, Mapping) else None
    return isinstance(model, Mapping) and "train_conf" in content and all(hasattr(v, "shape") for v in model.values())


def _torch(path: Path) -> Any:
    """What torch reads without running anything; None for what it does not, which its own reader tells."""
    import numpy as np
    import torch

    make = np.zeros(1).__reduce__()[0]
    numbers = [type(np.dtype(name)) for name in ("float32", "float64", "float16", "int64", "int32")]
    allowed: list[Any] = [make, (make, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, *numbers]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # bytes that are no pickle lead the unpickler into whatever they lead it into
        return None
