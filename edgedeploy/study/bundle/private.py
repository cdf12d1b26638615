"""Nothing of a host, no private word of the study file and no id of a case may be in a bundle: it is handed on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edgedeploy.errors import BundleError
from edgedeploy.study.bundle.material import Material

_TEXTS: Final = (".json", ".md")
_LONG: Final = 8
"""Shorter ids of cases, and numbers, stand in any text."""

_SHORTEST_PATH: Final = 5
"""Shorter paths, such as ``/`` and ``/tmp``, may stand in any bytes."""


def require_nothing_private(part: Path, material: Material) -> None:
    """Raises ``BundleError`` for a file below ``part`` that names a folder of this host, or, where it is a text of ours, a
    private word of the study file."""
    places = [text.encode() for text in _places(material)]
    named = (name for name in material.cases if len(name) >= _LONG and not name.isdecimal())
    words = [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)") for word in (*material.private, *named)]
    for path in sorted(item for item in part.rglob("*") if item.is_file()):
        data = path.read_bytes()
        name = path.relative_to(part).as_posix()
        if any(place in data for place in places):
            raise BundleError(
                f"file {name} of the bundle", "it names a folder of this host", "Report it with that file"
            )
        text = data.decode("utf-8", errors="replace") if path.suffix in _TEXTS else ""
        if any(word.search(text) for word in words):
            found = "it has a word of the study file that is private, or the id of a case"
            raise BundleError(f"file {name} of the bundle", found, "Rename what has that word, or report it")


def _places(material: Material) -> list[str]:
    """Folders of this host that a toolchain may have written into a file of its own."""
    base = Path(str(material.study["spec_folder"]))
    found = {material.store.root.absolute(), material.store.root.resolve(), base, base.resolve(), Path.home()}
    return sorted(text for text in map(str, found) if len(text) >= _SHORTEST_PATH)
