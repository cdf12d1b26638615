"""A Linux start-up archive (cpio, "newc") of a few files and kernel modules, written without any tool."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgedeploy.errors import CommandFailed

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_FOLDER, _FILE = 0o040755, 0o100755


def pack(files: Mapping[str, bytes], folders: Sequence[str]) -> bytes:
    """The archive's bytes. Times and owners are fixed, so that equal files give equal bytes."""
    entries = [(name, _FOLDER, b"") for name in folders]
    entries += [(name, _FILE, data) for name, data in sorted(files.items())]
    entries.append(("TRAILER!!!", 0, b""))
    return b"".join(_entry(number, *entry) for number, entry in enumerate(entries, 1))


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    title = name.encode() + b"\0"
    numbers = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(title), 0)
    head = b"070701" + b"".join(b"%08x" % value for value in numbers) + title
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def modules_with_dependencies(wanted: Sequence[str], folder: Path) -> dict[str, bytes]:
    """Kernel modules by name, in an order in which they can be loaded. Dependencies are read from the modules
    themselves.

    Raises ``CommandFailed`` when the kernel's folder has no such module.
    """
    files = {path.stem.replace("-", "_"): path for path in folder.rglob("*.ko")}
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        key = name.replace("-", "_")
        if key in found:
            return
        if key not in files:
            raise CommandFailed(
                f"find the kernel module {name}", f"none in {folder.name}", "Use another kernel package"
            )
        data = files[key].read_bytes()
        match = _DEPENDS.search(data)
        for other in match[1].decode("ascii").split(",") if match else ():
            if other:
                add(other)
        found[key] = data

    for name in wanted:
        add(name)
    return found
