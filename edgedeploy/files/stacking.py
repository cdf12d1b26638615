"""Arrays of many cases in ``.npz`` files, of which one case at a time is in memory."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

from edgedeploy.files.arrays import read_arrays, stored_arrays
from edgedeploy.files.writing import disk_told, whole_or_nothing

_PIECE: Final = 1 << 20


def write_stacked(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    r"""A compressed ``.npz`` with the arrays of each row stacked along a new first axis, (rows, \*shape), whole or not at
    all. Returns how many rows there were. Values wait in files beside ``path``, one an array, until the last row is there.

    Raises ``ValueError`` for no row, and for a row whose arrays have other names, shapes or types than the first one's;
    ``StorageError`` where the disk is full or fails.
    """
    with disk_told(path), ExitStack() as open_files:
        path.parent.mkdir(parents=True, exist_ok=True)
        stack = _Stack(path.parent, open_files)
        for row in rows:
            stack.add(row)
        if not stack.rows:
            raise ValueError("there is no case to stack")
        with whole_or_nothing(path) as stream:
            stack.pack(stream)
        return stack.rows


class _Stack:
    def __init__(self, folder: Path, open_files: ExitStack) -> None:
        self.rows = 0
        self._folder = folder
        self._open_files = open_files
        self._values: dict[str, IO[bytes]] = {}
        self._forms: dict[str, tuple[Any, tuple[int, ...]]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        import numpy as np

        arrays = {name: np.asarray(value) for name, value in row.items()}
        forms = {name: (array.dtype, array.shape) for name, array in arrays.items()}
        self._forms = self._forms or forms
        if forms != self._forms:
            raise ValueError(f"case {self.rows} has other arrays than the first one: {forms}, not {self._forms}")
        for name, array in arrays.items():
            if name not in self._values:
                waiting = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # the stack closes it
                self._values[name] = self._open_files.enter_context(waiting)
            self._values[name].write(np.ascontiguousarray(array).data)
        self.rows += 1

    def pack(self, stream: IO[bytes]) -> None:
        import numpy as np

        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for name, values in self._values.items():
                dtype, shape = self._forms[name]
                header = {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (self.rows, *shape),
                }
                values.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    shutil.copyfileobj(values, member, _PIECE)


def mapped_arrays(path: Path, most_bytes: int | None = None) -> dict[str, Any]:
    """As :func:`edgedeploy.files.read_arrays`, but arrays that are stored as they are (what a board sends) are mapped: what
    is not looked at is not read, and what was looked at can be dropped. Whoever writes into them changes this process's copy
    alone. Nobody may write the file meanwhile; it may be removed. Checksums are not looked at: whoever took the file in has
    held it against them (:func:`edgedeploy.files.array_forms`)."""
    import numpy as np

    places = stored_arrays(path, most_bytes)
    if places is None:
        return read_arrays(path, most_bytes)
    return {
        name: np.memmap(path, dtype, "c", offset, shape).view(np.ndarray) if 0 not in shape else np.empty(shape, dtype)
        for name, (offset, shape, dtype) in places.items()
    }
