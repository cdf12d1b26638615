"""Model-ready inputs for a bare ONNX model: rows of an ``.npz`` file, or a folder of images.

An ``.npz`` holds one array per model input with cases along its first axis. It is read row by row, so it may be larger
than memory. For a folder of images the study file states the preprocessing: a wrong guess (BGR for RGB, 0 to 255 for 0
to 1) would give wrong numbers without an error.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from edgedeploy.errors import Advice, DataError, Setting, SpecError
from edgedeploy.interfaces.task import Array, Split
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.runtime.pipeline.run import prepare
from edgedeploy.runtime.pipeline.steps import Grey, InputStep, Normalise, Resize, Rgb, Steps, SwapRedBlue, ToTensor
from edgedeploy.tasks.images.files import image_files
from edgedeploy.tasks.images.reader import ImageReader, Shades
from edgedeploy.tasks.images.rules import ImageRules
from edgedeploy.tasks.onnx.arrays import ArrayFile, ArrayFolder, array_files

MAX_CASES: Final = 20_000
COLOURS: Final = ("rgb", "bgr", "grey")
PREPROCESSING: Final = "task.options.preprocessing"
PREPROCESSING_EXAMPLE: Final = Advice("For example", {"colour": "'rgb'", "mean": "0", "std": "255"})


class Source(Protocol):
    """Cases of one split. A protocol, because files of arrays and folders of images share no code."""

    def names(self) -> Sequence[str]:
        """One name per case, in a fixed order."""

    def load(self, index: int) -> dict[str, Array]:
        """Inputs of one case, shaped as the model wants them. Raises ``DataError``."""


@dataclass(frozen=True)
class Preprocessing:
    """From the pixels of an image file to the model's input: ``(pixel - mean) / std``, in the order of ``colour``. Pixels
    are 0 (black) to 255 (white), with fractions where a file has more than 8 bits; with ``value_range = "raw"`` they are
    the file's own numbers. One number stands for all channels."""

    colour: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rules: ImageRules = field(default_factory=ImageRules)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Preprocessing:
        """Raises ``SpecError`` for a table that leaves something to be guessed."""
        if not {"colour", "mean", "std"} <= set(table) <= {"colour", "mean", "std", "value_range", "page"}:
            found = f"it has {', '.join(table) or 'nothing'}, not colour, mean and std"
            raise SpecError(Setting(PREPROCESSING), found, PREPROCESSING_EXAMPLE)
        if table["colour"] not in COLOURS:
            found, known = f"got {table['colour']!r}", f"Known: {', '.join(COLOURS)}"
            raise SpecError(Setting(f"{PREPROCESSING}.colour"), found, known)
        channels = 1 if table["colour"] == "grey" else 3
        numbers = {}
        for key in ("mean", "std"):
            values = table[key] if isinstance(table[key], list) else [table[key]]
            sound = all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values)
            if not sound or len(values) not in (1, channels) or (key == "std" and any(v <= 0 for v in values)):
                example = replace(PREPROCESSING_EXAMPLE, before="One number, or one per channel. For example")
                raise SpecError(Setting(f"{PREPROCESSING}.{key}"), f"got {table[key]!r}", example)
            numbers[key] = tuple(float(value) for value in values)
        return cls(str(table["colour"]), numbers["mean"], numbers["std"], ImageRules.from_table(table, PREPROCESSING))

    def steps(self, spec: TensorSpec) -> tuple[InputStep, ...]:
        """From an image to the input, squeezed to its size, (1, C, H, W) or (1, H, W, C) as ``spec`` has it."""
        channels, height, width, first = image_layout(spec)
        grey = self.colour == "grey"
        if channels != (1 if grey else 3):
            found = f"input {spec.name!r} has {channels} channel{'s' if channels > 1 else ''}"
            raise SpecError(Setting(f"{PREPROCESSING}.colour", repr(self.colour)), found, "Use 'grey' for one channel")
        return (
            Grey() if grey else Rgb(),
            Resize(height, width, "bilinear-antialias"),
            *((SwapRedBlue(),) if self.colour == "bgr" else ()),
            Normalise(1.0, self.mean, self.std),
            ToTensor(spec.name, "NCHW" if first else "NHWC", spec.dtype),
        )


def image_layout(spec: TensorSpec) -> tuple[int, int, int, bool]:
    """Channels, height, width, and whether channels come first. Raises ``SpecError`` for an input that takes no image."""
    shape = spec.shape
    if len(shape) == 4 and shape[0] == 1 and spec.dtype in ("float32", "float16", "uint8"):
        if shape[1] in (1, 3):
            return shape[1], shape[2], shape[3], True
        if shape[3] in (1, 3):
            return shape[3], shape[1], shape[2], False
    raise SpecError(
        f"images for input {spec.name!r}", f"it is {spec.dtype} {shape}", "Give the inputs as an .npz of arrays"
    )


class Sources:
    """The inputs of every split. ``note`` says what was found about the range of their images, if anything."""

    def __init__(
        self, places: Mapping[Split, Path], specs: Sequence[TensorSpec], preprocessing: Preprocessing | None
    ) -> None:
        """``places``: ``.npz`` or ``.npy`` files, folders of these or of images. Raises ``SpecError`` and ``DataError``."""
        arrays = {split: array_files(place) for split, place in places.items() if place.is_dir()}
        folders = {split: places[split] for split, found in arrays.items() if not found}
        for split, place in folders.items():
            if preprocessing is None:
                found = "A folder of images needs colour, mean, std"
                raise SpecError(Setting(PREPROCESSING), "it is missing", found)
            if len(specs) != 1:
                names = ", ".join(spec.name for spec in specs)
                asked = Setting(f"task.options.{split}", repr(place.name))
                raise SpecError(asked, f"the model has the inputs {names}", "Give them as an .npz of arrays")
        files = {split: image_files(place) for split, place in folders.items()}
        rules = preprocessing.rules if preprocessing else ImageRules()
        reader = ImageReader(rules, [path for found in files.values() for path in found])
        self.note = reader.note
        self.by_split: dict[Split, Source] = {}
        for split, place in places.items():
            if split in files and preprocessing is not None:
                self.by_split[split] = ImageSource(place, files[split], specs[0], preprocessing, reader)
            elif arrays.get(split):
                parts = [(path.name, _array_file(path, specs)) for path in arrays[split]]
                self.by_split[split] = ArrayFolder(place, parts, MAX_CASES)
            elif place.suffix in (".npy", ".npz") and place.is_file():
                self.by_split[split] = _array_file(place, specs)
            else:
                asked = Setting(f"task.options.{split}", repr(place.name))
                raise DataError(asked, f"no folder and no .npz file at {place}", "Correct the path")


def _array_file(path: Path, specs: Sequence[TensorSpec]) -> Source:
    return ArrayFile(path, specs) if path.suffix.lower() == ".npy" else ArraySource(path, specs)


class ImageSource:
    """Every image of a folder, by name. ``load`` decodes one."""

    def __init__(
        self,
        folder: Path,
        paths: Sequence[Path],
        spec: TensorSpec,
        preprocessing: Preprocessing,
        reader: ImageReader,
    ) -> None:
        image_layout(spec)
        self._paths = paths
        self._spec = spec
        self._preprocessing = preprocessing
        self._reader = reader
        if not 1 <= len(self._paths) <= MAX_CASES:
            raise DataError(f"images in {folder}", f"it holds {len(self._paths)}", f"1 to {MAX_CASES} are taken")

    def names(self) -> Sequence[str]:
        return [path.name for path in self._paths]

    def load(self, index: int) -> dict[str, Array]:
        found, _ = prepare(Steps(self.steps), self.frame(index))
        return found

    @property
    def steps(self) -> tuple[InputStep, ...]:
        """What makes the input of a frame."""
        return self._preprocessing.steps(self._spec)

    def frame(self, index: int) -> Shades:
        """The image as its file has it, black 0 to white 255."""
        return self._reader.shades(self._paths[index], colour=self._preprocessing.colour != "grey")


@dataclass(frozen=True)
class _Member:
    """One array of the file: how many cases, and where a row starts after ``header_bytes``."""

    name: str
    rows: int
    row_bytes: int
    header_bytes: int
    dtype: np.dtype[Any]


class ArraySource:
    """Rows of an ``.npz``. Constructing it reads the headers of its arrays; ``load`` reads one row of each."""

    def __init__(self, path: Path, specs: Sequence[TensorSpec]) -> None:
        self._path = path
        self._specs = specs
        found = {spec.name: self._member(spec) for spec in specs}
        counts = {member.rows for member in found.values()}
        if len(counts) != 1 or not 1 <= min(counts) <= MAX_CASES:
            text = ", ".join(f"{name} {member.rows}" for name, member in found.items())
            raise DataError(f"cases in {path}", text, f"One number for all arrays, 1 to {MAX_CASES}")
        self._members = found
        self._count = counts.pop()

    def names(self) -> Sequence[str]:
        return [str(index) for index in range(self._count)]

    def load(self, index: int) -> dict[str, Array]:
        return {spec.name: self._row(self._members[spec.name], spec, index) for spec in self._specs}

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._path)
        except (OSError, zipfile.BadZipFile) as exc:
            raise DataError(f"arrays of {self._path}", f"it is no .npz ({exc})", "Write it with numpy.savez") from None

    def _member(self, spec: TensorSpec) -> _Member:
        name = f"{spec.name}.npy"
        asked = f"array {spec.name!r} of {self._path.name}"
        if name not in self._archive.namelist():
            known = ", ".join(item.removesuffix(".npy") for item in self._archive.namelist()[:20])
            raise DataError(asked, f"the file has {known or 'nothing'}", "Name the arrays as the model's inputs")
        try:
            with self._archive.open(name) as stream:
                shape, fortran, dtype = _header(stream)
                header_bytes = stream.tell()
        except (ValueError, zipfile.BadZipFile) as exc:
            raise DataError(asked, f"it is no array ({exc})", "Write it with numpy.savez") from None
        row = tuple(shape[1:])
        if fortran or dtype != np.dtype(spec.dtype) or row not in (spec.shape, spec.shape[1:]) or not shape:
            found = f"{dtype} {shape}{' in Fortran order' if fortran else ''}"
            raise DataError(asked, found, f"Wanted: {spec.dtype}, (cases, {', '.join(map(str, spec.shape))})")
        if row != spec.shape and spec.shape[0] != 1:
            raise DataError(asked, f"rows of {row}", f"The model takes {spec.shape} at once")
        row_bytes = math.prod(row) * dtype.itemsize
        size_bytes = self._archive.getinfo(name).file_size
        if header_bytes + shape[0] * row_bytes != size_bytes:
            raise DataError(asked, f"{size_bytes} bytes for {shape}", "The file is cut short or padded")
        return _Member(name, int(shape[0]), row_bytes, header_bytes, dtype)

    def _row(self, member: _Member, spec: TensorSpec, index: int) -> Array:
        asked = f"case {index} of {self._path.name}"
        try:
            with self._archive.open(member.name) as stream:
                stream.seek(member.header_bytes + index * member.row_bytes)
                data = stream.read(member.row_bytes)
        except (OSError, zipfile.BadZipFile) as exc:
            raise DataError(asked, f"it cannot be read ({exc})", "Write the file again") from None
        values = np.frombuffer(data, member.dtype).reshape(spec.shape).copy()
        if not np.isfinite(values).all():
            raise DataError(
                f"{asked}, input {spec.name!r}", "it holds NaN or Inf", "Remove the case, or write it again"
            )
        return values


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type from the head of an ``.npy`` member. Raises ``ValueError`` for anything else."""
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)[0]
    if version not in read:
        raise ValueError(f"version {version} of the format")
    shape, fortran, dtype = read[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, fortran, dtype


def digest_of_inputs(inputs: Mapping[str, Array]) -> str:
    """SHA-256 of one case, to find the same case on two sides of a split."""
    digest = hashlib.sha256()
    for name, value in sorted(inputs.items()):
        digest.update(name.encode() + b"\0" + value.tobytes())
    return digest.hexdigest()
