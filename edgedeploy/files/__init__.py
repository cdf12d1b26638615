"""Files of this host: written whole or not at all, following no link; read within limits."""

from edgedeploy.files.arrays import (
    MOST_ARRAYS,
    MOST_DEFLATED,
    NUMBERS,
    array_forms,
    host_memory_bytes,
    read_arrays,
    write_arrays,
)
from edgedeploy.files.parsing import MOST_DEPTH, parsed, parsed_value, read_plain
from edgedeploy.files.stacking import mapped_arrays, write_stacked
from edgedeploy.files.writing import (
    PARTIAL_PREFIX,
    append_line,
    disk_told,
    lock_file,
    new_folder,
    place_told,
    raise_if_disk,
    read_json,
    remove,
    remove_partials,
    write_atomic,
    write_json,
    write_new,
    written,
)

__all__ = [
    "MOST_ARRAYS",
    "MOST_DEFLATED",
    "NUMBERS",
    "array_forms",
    "host_memory_bytes",
    "read_arrays",
    "write_arrays",
    "mapped_arrays",
    "write_stacked",
    "MOST_DEPTH",
    "parsed",
    "parsed_value",
    "read_plain",
    "PARTIAL_PREFIX",
    "append_line",
    "disk_told",
    "lock_file",
    "new_folder",
    "place_told",
    "raise_if_disk",
    "read_json",
    "remove",
    "remove_partials",
    "write_atomic",
    "write_json",
    "write_new",
    "written",
]
