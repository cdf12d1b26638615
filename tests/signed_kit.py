"""A tiny bundle with a true manifest and signature, for tests of what is refused. No runtime opens its files."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from edgedeploy.runtime.bundle.names import MANIFEST, SIGNATURE
from edgedeploy.runtime.bundle.p256 import public_key
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.study.bundle import sign

NAME = "thyroid"
FILES = {
    "MODEL_CARD.md": b"# A card\n",
    "artifact/model.onnx": bytes(range(256)) * 4,
    "golden/c0.frame.npy": b"frame",
    "golden/c0.image.npy": b"image",
    "golden/c0.out.npy": b"out",
    "golden/c0.result.npy": b"result",
    "recipe.json": b"{}\n",
}


def manifest(files: Mapping[str, bytes] = FILES, **fields: Any) -> bytes:
    """The manifest's text, with other values at the top where they are given."""
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()}
    case = {
        "id": "c0",
        "frame": "golden/c0.frame.npy",
        "inputs": {"image": "golden/c0.image.npy"},
        "outputs": {"out": "golden/c0.out.npy"},
        "result": "golden/c0.result.npy",
    }
    value = {
        "format": "edgedeploy-bundle",
        "version": 1,
        "name": NAME,
        "release": 3,
        "created": None,
        "not_after": None,
        "target": "onnxruntime",
        "artifact": {
            "kind": "files",
            "files": ["model.onnx"],
            "session": {"entry": "model.onnx", "settings": {}, "threads": 1, "states": {}},
        },
        "inputs": [{"name": "image", "dtype": "float32", "shape": [1, 1, 8, 8]}],
        "outputs": [{"name": "out", "dtype": "float32", "shape": [1, 2, 8, 8]}],
        "pipeline": {"input": [{"step": "grey"}], "output": [{"step": "argmax"}]},
        "compatibility": {
            "runtime": {"package": "onnxruntime", "at_least": "1.20", "below": None, "measured_with": "1.22.1"},
            "machine": "x86_64",
            "cpu_flags": [],
            "gpu": None,
            "driver": None,
        },
        "golden": {
            "cases": [case],
            "tolerance": {"out": {"relative_l2": 1e-3, "max_abs": None}},
            "result_tolerance": {"share_differing": 0.001},
        },
        "files": listed,
        **fields,
    }
    return (json.dumps(value, sort_keys=True, indent=1) + "\n").encode()


@functools.cache
def _key(number: int) -> Any:
    return ec.derive_private_key(2**200 + number, ec.SECP256R1())


def private_key(number: int = 0) -> Any:
    """A key that everybody knows, the same each time; another one for another number."""
    return _key(number)


def public_pem(number: int = 0) -> bytes:
    return sign.public_pem(private_key(number))


def signed(files: Mapping[str, bytes], number: int = 0) -> dict[str, bytes]:
    """The files with their signature."""
    tree = Tree({name: data for name, data in files.items() if name != SIGNATURE})
    return {**tree.files, SIGNATURE: sign.signature_of(tree, private_key(number), NAME)}


def bundle(number: int = 0, **fields: Any) -> dict[str, bytes]:
    """The files of a whole signed bundle, by name."""
    return signed({**FILES, MANIFEST: manifest(**fields)}, number)


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def key_id(number: int = 0) -> str:
    return public_key(public_pem(number)).key_id
