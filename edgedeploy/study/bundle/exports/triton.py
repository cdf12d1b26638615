"""A bundle's artifact as a Triton model repository: ``NAME/config.pbtxt``, ``NAME/RELEASE/``, golden inputs as warm-up.

Triton serves tensors: the steps before and after inference stay with the client, and nothing verifies the signature there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgedeploy.errors import BundleError
from edgedeploy.runtime.bundle.arrays import read_array
from edgedeploy.runtime.bundle.manifest import ARTIFACT_FOLDER, Manifest, Tensor
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.runtime.pipeline.tiles import SETTING
from edgedeploy.study.oneshot.pbtxt import NO_AXES, TYPES, ModelConfig, Port, form, quoted

BACKENDS: Final = {"onnxruntime": "onnxruntime", "openvino": "openvino"}


def write_triton(tree: Tree, manifest: Manifest, folder: Path) -> None:
    """Into the empty ``folder``. Raises ``BundleError`` for a target that no backend of Triton serves from such files,
    for tensors that it has no name for, and for an artifact that runs in tiles."""
    if manifest.target not in BACKENDS:
        found = f"Triton has no backend for files of target {manifest.target!r}"
        raise BundleError("a Triton repository of that bundle", found, f"Bundle one for {' or '.join(BACKENDS)}")
    if SETTING in manifest.artifact.session.settings:
        found = "its artifact is the network of one tile, and Triton puts no tiles together"
        raise BundleError("a Triton repository of that bundle", found, "Hand it over as oci, or bundle a whole variant")
    unknown = sorted({tensor.dtype for tensor in (*manifest.inputs, *manifest.outputs)} - set(TYPES))
    if unknown:
        found = f"Triton has no name for tensors of {', '.join(unknown)}"
        raise BundleError("a Triton repository of that bundle", found, "Hand it over as oci, which takes it as it is")
    if any(not tensor.shape for tensor in (*manifest.inputs, *manifest.outputs)):
        raise BundleError("a Triton repository of that bundle", NO_AXES, "Hand it over as oci, which takes it as it is")
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
    threads = {"intra_op_thread_count": str(session.threads)} if manifest.target == "onnxruntime" else {}
    config = ModelConfig(
        name=manifest.name,
        backend=BACKENDS[manifest.target],
        file=session.entry,
        inputs=[_port(tensor) for tensor in manifest.inputs],
        outputs=[_port(tensor) for tensor in manifest.outputs],
        version=manifest.release,
        parameters=threads,
    )
    yield config.text().rstrip("\n")
    for case in manifest.golden.cases:
        inputs = " ".join(
            f"inputs {{ key: {quoted(tensor.name)} value {{ {form(_port(tensor))} "
            f"input_data_file: {quoted(_warmup_name(case.id, tensor.name))} }} }}"
            for tensor in manifest.inputs
        )
        yield f"model_warmup {{ name: {quoted(case.id)} {inputs} }}"


def _port(tensor: Tensor) -> Port:
    return Port(tensor.name, tensor.dtype, tuple(-1 if size is None else size for size in tensor.shape))
