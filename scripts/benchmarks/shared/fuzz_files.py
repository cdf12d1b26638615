"""Damaged files of strangers through what reads them: ONNX networks and DICOM images."""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from benchmarks import ROOT
from benchmarks.shared.mutations import mutate_bytes

sys.path.insert(0, str(ROOT / "tests"))  # foreign_onnx and small_onnx

from edgedeploy.errors import DataError
from edgedeploy.reference import safety, safety_child, take_in, take_in_child
from edgedeploy.reference.safety import Limits, check_onnx
from edgedeploy.runtime.dicom import DicomError, Segment, open_clip, write_segmentation

CHILD_CPU_S: Final = 3
"""Processor time that a child has for one small network; what needs more is refused, as it is by the product's limit."""

INTEGERS: Final = (0, 1, -1, 2, 7, 255, 2**31 - 1, -(2**31))
LONG_INTEGERS: Final = (*INTEGERS, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
TEXTS: Final = ("", "../../outside", "/etc/passwd", "image", "out", "x" * 3000, "Loop", "If", "Conv", "\0")
"""Names of tensors and operators among them: another graph, and not only a broken one."""


class OnnxFiles:
    """Damaged networks through the two looks at a stranger's file. The children with limits are forked instead of started,
    which takes milliseconds: the code in them, their limits and what their end is taken for are the same."""

    def __init__(self, recording: object, folder: Path) -> None:
        import foreign_onnx
        import onnxruntime  # noqa: F401  # children inherit it
        import small_onnx

        from edgedeploy.reference import clean  # noqa: F401  # as above

        made: tuple[Callable[[Path], Path], ...] = (
            *(small_onnx.convolutional, small_onnx.u_shaped, small_onnx.norm_after_relu, small_onnx.transformer_block),
            *(foreign_onnx.bomb_in_a_branch, foreign_onnx.bomb_in_a_loop, foreign_onnx.bomb_in_a_function),
            foreign_onnx.weights_upwards_in_a_loop,
        )
        self._models = {make.__name__: make(folder / "made.onnx").read_bytes() for make in made}
        self._path = folder / "model.onnx"
        safety.run_limited = take_in.run_limited = run_forked  # type: ignore[assignment]

    def damage(self, rng: random.Random) -> tuple[str, bytes]:
        what = rng.choice([*self._models])
        data = self._models[what]
        return what, mutate_bytes(data, rng) if rng.random() < 0.4 else mutate_message(data, rng)

    def read(self, what: str, data: bytes) -> None:
        self._path.write_bytes(data)
        check_onnx(self._path)
        take_in.take_in(self._path, {}, limits=Limits(memory_bytes=1 << 40, cpu_s=CHILD_CPU_S))


def mutate_message(data: bytes, rng: random.Random) -> bytes:
    """An ONNX model with other values in one to three of its fields, at any depth."""
    import onnx

    model = onnx.load_from_string(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        message: Any = model
        while True:  # down a random path, so that the few fields at the top are met as often as the many weights
            fields = [(field, value) for field, value in message.ListFields() if not _is_empty(value)]
            if not fields:
                break
            field, value = rng.choice(fields)
            repeated = not isinstance(value, (int, float, str, bytes)) and not hasattr(value, "ListFields")
            if field.type != field.TYPE_MESSAGE:
                _set(message, field, value if repeated else None, rng)
                break
            if repeated and rng.random() < 0.3:
                _rearrange(value, rng)
                break
            message = rng.choice(list(value)) if repeated else value
    return bytes(model.SerializeToString())


def _is_empty(value: Any) -> bool:
    return hasattr(value, "__len__") and len(value) == 0


def _rearrange(items: Any, rng: random.Random) -> None:
    at = rng.randrange(len(items))
    if rng.random() < 0.5:
        del items[at]
    else:
        items.add().CopyFrom(items[at])


def _set(message: Any, field: Any, items: Any, rng: random.Random) -> None:
    """Another value in a field of the message, or in one place of a repeated one."""
    kinds = field.CPPTYPE_INT32, field.CPPTYPE_ENUM
    if field.cpp_type == field.CPPTYPE_STRING:
        text = rng.choice(TEXTS)
        value: Any = text.encode() if field.type == field.TYPE_BYTES else text
    elif field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        value = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
    else:
        value = rng.choice(INTEGERS if field.cpp_type in kinds else LONG_INTEGERS)
        value = abs(value) if field.cpp_type in (field.CPPTYPE_UINT64, field.CPPTYPE_UINT32) else value
    with contextlib.suppress(ValueError, TypeError):  # an enumeration that takes no such number
        if items is None:
            setattr(message, field.name, value)
        else:
            items[rng.randrange(len(items))] = value


def run_forked(asked: str, argv: Sequence[str], limits: Limits, source: IO[bytes] | int = -1) -> bytes:
    """In the place of :func:`edgedeploy.reference.safety.run_limited`: how the child ended is told in the same error."""
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            _child(argv, source, told.fileno(), said.fileno())
        try:
            _, status = os.waitpid(child, 0)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        said.seek(0)
        told.seek(0)
        last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        if status != 0:
            how = os.waitstatus_to_exitcode(status)
            raise DataError(asked, f"the process ended with {how}: {''.join(last)[:200]}", "Do not load it")
        return told.read()


def _child(argv: Sequence[str], source: IO[bytes] | int, told: int, said: int) -> None:
    """What the started process does: one look, its answer, its end."""
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.dup2(told, 1)
        os.dup2(said, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CHILD_CPU_S, CHILD_CPU_S))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if argv[-1].endswith("take_in_child"):
            assert not isinstance(source, int)
            source.seek(0)
            sys.stdin = io.TextIOWrapper(io.BytesIO(source.read()), encoding="utf-8")
            take_in_child.main()
        import json

        os.write(1, json.dumps(safety_child.look(Path(argv[-2]), int(argv[-1]))).encode())
        os._exit(0)
    except BaseException as exc:
        os.write(said, f"{type(exc).__name__}: {exc}".encode("utf-8", "replace"))
        os._exit(1)


# -- DICOM

IMAGES: Final = (
    *("SC_rgb_small_odd_jpeg.dcm", "MR_small.dcm", "SC_rgb_rle_2frame.dcm", "SC_ybr_full_422_uncompressed.dcm"),
    *(
        "JPEG2000.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_RLE.dcm",
        "SC_rgb_dcmtk_+eb+cy+s2.dcm",
        "JPEG-lossy.dcm",
    ),
    *("MR_small_bigendian.dcm", "MR_small_implicit.dcm", "examples_palette.dcm"),
)
"""Files that pydicom brings: the ways in which pixels are stored, small ones."""

TAGS: Final = (
    *((0x28, 0x10), (0x28, 0x11), (0x28, 0x02), (0x28, 0x04), (0x28, 0x06), (0x28, 0x08), (0x28, 0x100), (0x28, 0x101)),
    *((0x28, 0x102), (0x28, 0x103), (0x28, 0x1101), (0x28, 0x1201), (0x02, 0x10), (0x18, 0x1063), (0x18, 0x40)),
    *((0x08, 0x16), (0x08, 0x18), (0x08, 0x20), (0x10, 0x10), (0x20, 0x0D), (0x20, 0x0E), (0x7FE0, 0x10), (0x08, 0x05)),
)
"""What a reader looks at: sizes, bits, colours, the palette, transfer syntax, times, identifiers, character set, pixels."""

VALUES: Final = (
    b"\0\0",
    b"\1\0",
    b"\xff\xff",
    b"\xff\x7f",
    b"\x00\x80",
    b"\0" * 4,
    b"\xff" * 4,
    b"-1",
    b"1\\2",
    b"9" * 8,
)


class DicomFiles:
    """Damaged images, read as a device reads a clip: opened, first and last frame, and a segmentation written for it."""

    def __init__(self, recording: object, folder: Path) -> None:
        from pydicom.data import get_testdata_file

        paths = {name: get_testdata_file(name, download=False) for name in IMAGES}
        self._files = {name: Path(str(path)).read_bytes() for name, path in paths.items() if path}
        self._path, self._out = folder / "image.dcm", folder / "seg.dcm"

    def damage(self, rng: random.Random) -> tuple[str, bytes]:
        what = rng.choice([*self._files])
        data = self._files[what]
        for _ in range(rng.choice((1, 1, 2))):
            data = mutate_element(data, rng) if rng.random() < 0.7 else mutate_bytes(data, rng)
        return what, data

    def read(self, what: str, data: bytes) -> None:
        self._path.write_bytes(data)
        try:
            clip = open_clip(self._path)
            for index in {0, len(clip) - 1}:
                assert clip[index].shape[:2] == (clip.rows, clip.columns)
            if len(clip) <= 4 and clip.rows * clip.columns <= 1 << 20:
                masks = [np.ones((clip.rows, clip.columns), np.uint8)] * len(clip)
                write_segmentation(self._out, clip, masks, [Segment("all")], model="fuzz", version="1")
        except DicomError as exc:
            raise DataError("read a damaged image", str(exc)[:100], "Another one") from exc
        finally:
            self._out.unlink(missing_ok=True)


def mutate_element(data: bytes, rng: random.Random) -> bytes:
    """Another kind, length or value of an element that a reader looks at, or none of it any more."""
    group, element = rng.choice(TAGS)
    order = rng.choice(("little", "little", "little", "big"))
    at = data.find(group.to_bytes(2, order) + element.to_bytes(2, order))  # type: ignore[arg-type]
    if at < 0:
        return mutate_bytes(data, rng)
    held, way = bytearray(data), rng.randrange(5)
    if way == 0:
        held[at + 4 : at + 6] = rng.choice((b"US", b"OW", b"SQ", b"UN", b"PN", b"DS", b"\0\0", b"??"))
    elif way == 1:
        held[at + 6 : at + 8] = rng.choice((b"\0\0", b"\1\0", b"\xff\xff", b"\xf0\x00"))
    elif way == 4:
        held[at : at + 4] = rng.randbytes(4)
    else:
        value = rng.choice(VALUES)
        held[at + 8 : at + 8 + len(value)] = value
    return bytes(held)
