"""Row of a bundle over a slow link: packed weights once, the model's other files by what those do not say, and the update
to the next release. The network, its images and its releases are those of ``storage.py``.

The files are a bundle's model files alone (packed weights, ONNX reference, an artifact of ONNX Runtime): golden vectors are
noise to every codec, and a bundle has as many as it is given. Nothing is measured on a board.
"""

from __future__ import annotations

import lzma
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.clinic_kit.storage import Subject, releases, subject
from benchmarks.shared.rows import Asked, Row
from edgedeploy.compress.codec.container import Packed, to_bytes
from edgedeploy.compress.codec.method import decoded
from edgedeploy.compress.codec.zstd import zstd_packed
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.reference.export import export_reference
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.study.bundle.link import WEIGHTS, link_of, tree_of
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget

PRECISIONS: Final = ("float32", "int8")


def bundle_over_link(asked: Asked) -> Row:
    """Two releases' files: whole, and the second as an update of the first; beside xz and zstd's patch of the same files."""
    one = subject()
    two = releases(asked.seed)
    parts, holds = [], True
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            first, second = (
                _tree(one, flat, packed, precision, Path(folder, f"{precision}-{number}"))
                for number, (flat, packed) in enumerate(((two.flat, two.old), (two.next_flat, two.new)))
            )
            text, held = _told(first, second)
            parts.append(f"{precision}: {text}")
            holds &= held
    bar = "every byte again; fewer bytes than xz of the same files, the update fewer than zstd's patch of them"
    return Row(f"model files over a link, {one.name}", "; ".join(parts), bar, holds)


def _told(first: Tree, second: Tree) -> tuple[str, bool]:
    started = time.process_time()
    whole, update = link_of(first), link_of(second, first)
    packing_s = time.process_time() - started
    started = time.process_time()
    equal = tree_of(whole.data).files == first.files and tree_of(update.data, first).files == second.files
    unpacking_s = time.process_time() - started
    plain, patched = len(lzma.compress(_joined(first), preset=9)), len(zstd_packed(_joined(second), _joined(first)))
    found = (
        f"{first.size_bytes / 1e3:.0f} kB of files in {len(whole.data) / 1e3:.1f} kB (packed weights alone "
        f"{len(first.files[WEIGHTS]) / 1e3:.1f}, xz {plain / 1e3:.1f}), the next release in {len(update.data) / 1e3:.1f} "
        f"(zstd's patch {patched / 1e3:.1f}), {'every byte again' if equal else 'OTHER BYTES'}; both packed in "
        f"{packing_s:.1f} s of CPU and unpacked in {unpacking_s:.1f}"
    )
    return found, equal and len(whole.data) < plain and len(update.data) < patched


def _tree(one: Subject, flat: Any, packed: Packed, precision: str, folder: Path) -> Tree:
    """The files that a bundle of the release has of its model."""
    samples = [one.task.inputs(case, **one.arch) for case in one.task.cases("calibration")[:4]]
    folder.mkdir()
    model = decoded(flat, packed.decoded())
    reference = export_reference(model, one.task.input_specs(**one.arch), folder / "reference.onnx", samples=samples)

    def calibration() -> Iterator[Mapping[str, Any]]:
        return (one.task.inputs(case, **one.arch) for case in one.task.cases("calibration"))

    asked = BuildRequest(reference.path, reference.inputs, reference.outputs, precision, calibration)  # type: ignore[arg-type]
    (place := folder / "artifact").mkdir()
    artifact = OnnxRuntimeTarget().build(asked, place)
    built = {f"artifact/{item.name}": (place / item.name).read_bytes() for item in artifact.files}
    return Tree({WEIGHTS: to_bytes(packed), "model/reference.onnx": reference.path.read_bytes(), **built})


def _joined(tree: Tree) -> bytes:
    return b"".join(tree.files[name] for name in sorted(tree.files))


ROWS = (bundle_over_link,)
