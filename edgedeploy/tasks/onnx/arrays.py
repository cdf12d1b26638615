"""Model-ready inputs in a folder of ``.npy`` and ``.npz`` files, as preprocessing scripts leave them: one case a file, or
several cases along the first axis of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from edgedeploy.errors import DataError
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec

ARRAY_SUFFIXES: Final = (".npy", ".npz")


class Part(Protocol):
    """The cases of one file."""

    def names(self) -> Sequence[str]: ...

    def load(self, index: int) -> dict[str, Array]: ...


def array_files(folder: Path) -> list[Path]:
    """The ``.npy`` and ``.npz`` files directly inside ``folder``, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ARRAY_SUFFIXES)


class ArrayFolder:
    """The cases of all ``parts``, one file after the other. ``names`` are unique: the file's, with the row where a file
    has several."""

    def __init__(self, folder: Path, parts: Iterable[tuple[str, Part]], most: int) -> None:
        self._places = [
            (name if len(part.names()) == 1 else f"{name}-{row}", part, index)
            for name, part in parts
            for index, row in enumerate(part.names())
        ]
        if not 1 <= len(self._places) <= most:
            raise DataError(f"cases in {folder}", f"it holds {len(self._places)}", f"1 to {most} are taken")

    def names(self) -> Sequence[str]:
        return [name for name, _, _ in self._places]

    def load(self, index: int) -> dict[str, Array]:
        _, part, row = self._places[index]
        return part.load(row)


class Share:
    """A stretch of the cases of another source, in the order of their names: cases that follow one another, such as the
    frames of a clip, stay together."""

    def __init__(self, whole: Part, first: float, last: float) -> None:
        """``first`` and ``last`` are shares of all cases, 0 to 1."""
        names = whole.names()
        self.whole = whole
        self._rows = range(round(first * len(names)), round(last * len(names)))

    def names(self) -> Sequence[str]:
        names = self.whole.names()
        return [names[row] for row in self._rows]

    def load(self, index: int) -> dict[str, Array]:
        return self.whole.load(self._rows[index])

    def place(self, index: int) -> int:
        """Where a case stands in the whole."""
        return self._rows[index]


class ArrayFile:
    """One ``.npy`` for the model's only input: a case with or without its batch axis, or cases along the first axis.
    Constructing it reads the header; ``load`` reads one case."""

    def __init__(self, path: Path, specs: Sequence[TensorSpec]) -> None:
        asked = f"array {path.name}"
        if len(specs) != 1:
            names = ", ".join(spec.name for spec in specs)
            raise DataError(asked, f"the model has the inputs {names}", "Write .npz files with one array per input")
        self._path, self._spec = path, specs[0]
        self._rows = self._stacked()
        self._count = len(self._rows)

    def names(self) -> Sequence[str]:
        return [str(index) for index in range(self._count)]

    def load(self, index: int) -> dict[str, Array]:
        values = np.array(self._rows[index]).reshape(self._spec.shape)
        if not np.isfinite(values).all():
            found, remedy = "it holds NaN or Inf", "Remove the case, or write it again"
            raise DataError(f"case {index} of {self._path.name}", found, remedy)
        return {self._spec.name: values}

    def _stacked(self) -> Any:
        """The cases along a first axis, mapped and not read."""
        asked, shape = f"array {self._path.name}", self._spec.shape
        try:
            found = np.load(self._path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as exc:
            raise DataError(asked, f"it is no .npy of numbers ({exc})", "Write it with numpy.save") from None
        single = shape[1:] if shape[:1] == (1,) else shape
        fits = {shape: found[None], single: found[None]}
        if found.ndim and found.shape[1:] in (shape, single):
            fits.setdefault(found.shape, found)
        if found.shape not in fits or found.dtype != np.dtype(self._spec.dtype):
            wanted = f"{self._spec.dtype} {shape}, or (cases, {', '.join(map(str, single))})"
            raise DataError(asked, f"it is {found.dtype} {found.shape}", f"Wanted: {wanted}")
        return fits[found.shape]
