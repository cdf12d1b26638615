"""References whose weights lie in a file beside them: protobuf holds 2 GB at most, and a file of weights need not be parsed.

The weights of a reference are one file, ``NAME.onnx.data`` beside ``NAME.onnx``. The model's metadata holds its SHA-256, so
that the hash of ``NAME.onnx`` stands for both files; whoever reads the weights holds them against it first
(:func:`check_weights`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError, Unsupported
from edgedeploy.runtime.files import sha256_file

MOST_INSIDE_BYTES: Final = 256 << 20
"""Weights inside the model, at most. A protobuf may have eight times as much, but whoever reads or writes one has its
weights twice, while ONNX Runtime maps a file of weights."""

MOST_IN_ONE_FILE_BYTES: Final = 2_000_000_000
"""Of weights in a protobuf, whose own limit is 2 GiB with everything else in it."""

SMALL_BYTES: Final = 1024
"""Tensors up to this size stay inside: shapes are computed from them."""

SUFFIX: Final = ".data"
_HASH: Final = "weights_sha256"


def weights_file(path: Path) -> Path:
    """Where the weights of the reference at ``path`` lie, if they lie in a file of their own."""
    return path.with_name(f"{path.name}{SUFFIX}")


def has_weights_file(path: Path) -> bool:
    """Whether the weights of edgedeploy's own reference at ``path`` lie in a file of their own."""
    return weights_file(path).is_file()


def save(model: Any, path: Path, most_inside_bytes: int | None = None) -> None:
    """Write a model, with its weights in a file beside it where they have more than ``most_inside_bytes``
    (:data:`MOST_INSIDE_BYTES` when left out). Such a model is left without its weights."""
    import onnx

    most = MOST_INSIDE_BYTES if most_inside_bytes is None else most_inside_bytes
    beside = weights_file(path)
    beside.unlink(missing_ok=True)
    _forget_hash(model)
    if sum(_size(tensor) for tensor in model.graph.initializer) > most:
        _move_out(model, beside)
    onnx.save(model, str(path))


def seal(model: Any, path: Path) -> None:
    """Write a model whose weights an exporter has put into :func:`weights_file` of ``path``, with their hash."""
    import onnx

    model.metadata_props.add(key=_HASH, value=sha256_file(weights_file(path)))
    onnx.save(model, str(path))


def _size(tensor: Any) -> int:
    return len(tensor.raw_data)


def _move_out(model: Any, beside: Path) -> None:
    import onnx

    digest, at = hashlib.sha256(), 0
    with beside.open("wb") as stream:
        for tensor in model.graph.initializer:
            size_bytes = _size(tensor)
            if size_bytes <= SMALL_BYTES:
                continue
            data = tensor.raw_data
            digest.update(data)
            stream.write(data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", beside.name), ("offset", str(at)), ("length", str(size_bytes))):
                tensor.external_data.add(key=key, value=value)
            at += size_bytes
    model.metadata_props.add(key=_HASH, value=digest.hexdigest())


def _forget_hash(model: Any) -> None:
    """A model that was read may have one, and no checker takes two."""
    others = [(item.key, item.value) for item in model.metadata_props if item.key != _HASH]
    del model.metadata_props[:]
    for key, value in others:
        model.metadata_props.add(key=key, value=value)


def require_in_one_file(
    path: Path, asked: str, remedy: str = "Choose float32, int8-dynamic, int8-weights or int4-weights"
) -> None:
    """For tools that hand a whole model on as one protobuf. Raises ``Unsupported`` for a reference past its size."""
    size_bytes = weights_file(path).stat().st_size if has_weights_file(path) else 0
    if size_bytes > MOST_IN_ONE_FILE_BYTES:
        found = f"its weights have {size_bytes} bytes, and the tool takes {MOST_IN_ONE_FILE_BYTES}"
        raise Unsupported(f"{asked} of {path.name}", found, remedy)


def check_weights(path: Path) -> None:
    """Hold the weights beside a reference against the hash in it. Raises ``DataError`` for others than were written; for
    links, because what they lead to may be changed by others."""
    import onnx

    beside = weights_file(path)
    if not os.path.lexists(beside):
        return
    asked, remedy = f"weights {beside}", f"Remove {beside.parent}: it is made again"
    if beside.is_symlink() or not beside.is_file():
        raise DataError(asked, "it is no file of its own", remedy)
    told = {item.key: item.value for item in onnx.load(str(path), load_external_data=False).metadata_props}
    if told.get(_HASH) != sha256_file(beside):
        raise DataError(asked, "they are not those that the model was written with", remedy)


def copy(path: Path, destination: Path) -> None:
    """A reference at another path of any name in an empty folder, its weights beside it under the name that it knows."""
    shutil.copyfile(path, destination)
    if has_weights_file(path):
        check_weights(path)
        shutil.copyfile(weights_file(path), destination.with_name(weights_file(path).name))


def move(path: Path, destination: Path) -> None:
    """A reference into another folder under its own name, the weights first: a reference that is there has them."""
    if has_weights_file(path):
        weights_file(path).replace(weights_file(destination))
    path.replace(destination)
