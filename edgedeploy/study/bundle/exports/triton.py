"""A bundle's artifact as a Triton model repository: ``NAME/config.pbtxt``, ``NAME/RELEASE/``, golden inputs as warm-up.

Triton serves tensors: the steps before and after inference stay with the client, and nothing verifies the signature there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgedeploy.errors import BundleError
from edgedeploy.runtime.bundle.arrays import read_array
from edgedeploy.runtime.bundle.manifest import ARTIFACT_FOLDER, Manifest, Tensor
from edgedeploy.runtime.bundle.tree import Tree

BACKENDS: Final = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
_TYPES: Final = {
    **{"float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64", "bool": "TYPE_BOOL"},
    **{f"{kind}{bits}": f"TYPE_{kind.upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


def write_triton(tree: Tree, manifest: Manifest, folder: Path) -> None:
    """Into the empty ``folder``. Raises ``BundleError`` for a target that no backend of Triton serves from such files."""
    if manifest.target not in BACKENDS:
        found = f"Triton has no backend for files of target {manifest.target!r}"
        raise BundleError("a Triton repository of that bundle", found, f"Bundle one for {' or '.join(BACKENDS)}")
    unknown = sorted({tensor.dtype for tensor in (*manifest.inputs, *manifest.outputs)} - set(_TYPES))
    if unknown:
        found = f"Triton has no name for tensors of {', '.join(unknown)}"
        raise BundleError("a Triton repository of that bundle", found, "Hand it over as oci, which takes it as it is")
    model = folder / manifest.name
    version = model / str(manifest.release)
    version.mkdir(parents=True)
    for name in manifest.artifact.files:
        (version / name).parent.mkdir(parents=True, exist_ok=True)
        (version / name).write_bytes(tree.read(f"{ARTIFACT_FOLDER}/{name}"))
    warmup = model / "warmup"
    warmup.mkdir()
    for case in manifest.golden.cases:
        for tensor, file in case.inputs.items():
            (warmup / _warmup_name(case.id, tensor)).write_bytes(read_array(tree.read(file), file).tobytes())
    (model / "config.pbtxt").write_text("\n".join(_config(manifest)) + "\n", encoding="utf-8")


def _warmup_name(case: str, tensor: str) -> str:
    return f"{case}.{''.join(char if char.isalnum() else '_' for char in tensor)}"


def _config(manifest: Manifest) -> Iterator[str]:
    session = manifest.artifact.session
    yield f"name: {_text(manifest.name)}"
    yield f"backend: {_text(BACKENDS[manifest.target])}"
    yield f"default_model_filename: {_text(session.entry)}"
    yield "max_batch_size: 0"
    for key, tensors in (("input", manifest.inputs), ("output", manifest.outputs)):
        for tensor in tensors:
            yield f"{key} {{ name: {_text(tensor.name)} {_form(tensor)} }}"
    yield f"version_policy {{ specific {{ versions: [ {manifest.release} ] }} }}"
    yield "instance_group { count: 1 kind: KIND_CPU }"
    if manifest.target == "onnxruntime":
        yield f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{session.threads}" }} }}'
    for case in manifest.golden.cases:
        inputs = " ".join(
            f"inputs {{ key: {_text(tensor.name)} value {{ {_form(tensor)} "
            f"input_data_file: {_text(_warmup_name(case.id, tensor.name))} }} }}"
            for tensor in manifest.inputs
        )
        yield f"model_warmup {{ name: {_text(case.id)} {inputs} }}"


def _form(tensor: Tensor) -> str:
    sizes = ", ".join(str(-1 if size is None else size) for size in tensor.shape)
    return f"data_type: {_TYPES[tensor.dtype]} dims: [ {sizes} ]"


def _text(value: str) -> str:
    """A text of the protocol buffers' text format; JSON's escapes are among its own."""
    return json.dumps(value)
