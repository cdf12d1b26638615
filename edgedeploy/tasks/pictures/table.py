"""Files that a data set names in a CSV or JSON file: read with limits, and never from outside the data's folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from edgedeploy.errors import DataError

MAX_TABLE_BYTES: Final = 64 << 20
MAX_ROWS: Final = 1_000_000


def read_limited(path: Path, largest_bytes: int) -> bytes:
    """The bytes of a file. Raises ``DataError`` for one that is not there, or larger."""
    try:
        with path.open("rb") as stream:
            data = stream.read(largest_bytes + 1)
    except OSError as exc:
        raise DataError(f"file {path}", f"it cannot be read ({exc.strerror or exc})", "Correct the path") from None
    if len(data) > largest_bytes:
        raise DataError(f"file {path}", f"it is larger than {largest_bytes >> 20} MiB", "Split the data set")
    return data


def read_table(path: Path, wanted: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and values of each row of a CSV file with a header. Columns that are not named are left out.

    Raises ``DataError`` for a column that is missing, an empty value of one that is wanted, and for no rows.
    """
    asked = f"table {path}"
    try:
        text = read_limited(path, MAX_TABLE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DataError(asked, f"it is no UTF-8 text (byte {exc.start})", "Save it as UTF-8") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = [str(name).strip() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    lacking = [name for name in wanted if name not in columns]
    if lacking or len(set(columns)) < len(columns):
        found = f"its columns are {', '.join(columns) or 'none'}"
        raise DataError(asked, found, f"The first line names the columns: {', '.join((*wanted, *optional))}")
    rows = 0
    try:
        for row in reader:
            rows += 1
            line = reader.line_num
            if any(cell.strip() for cell in row.get(None) or ()):
                found = f"it has more than the {len(columns)} values that the first line names"
                raise DataError(f"{asked}, line {line}", found, f"Put a value that holds {delimiter!r} in quotes")
            values = {name: (row.get(name) or "").strip() for name in (*wanted, *optional) if name in columns}
            empty = [name for name in wanted if not values[name]]
            if empty or rows > MAX_ROWS:
                found = f"no {empty[0]}" if empty else f"more than {MAX_ROWS} rows"
                raise DataError(f"{asked}, line {line}", found, "Correct the row, or split the data set")
            yield line, values
    except csv.Error as exc:
        raise DataError(f"{asked}, line {reader.line_num}", f"it is no CSV ({exc})", "Correct the line") from None
    if not rows:
        raise DataError(asked, "it has no rows", "Add a row per case")


def inside(folder: Path, name: str, asked: str) -> Path:
    """The file of that name below ``folder``. Raises ``DataError`` for a name that leads out of it, and for no file."""
    plain = PurePosixPath(name.replace("\\", "/"))
    if plain.is_absolute() or ".." in plain.parts or (plain.parts and plain.parts[0].endswith(":")) or "\0" in name:
        raise DataError(asked, f"{name!r} leads out of {folder}", "Name files below the data's folder")
    path = folder / plain
    if not path.is_file():
        raise DataError(asked, f"no file at {path}", "Correct the name, or add the file")
    return path
