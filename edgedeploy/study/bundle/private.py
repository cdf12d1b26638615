"""Nothing of a host, no private word of the study file and no id of a case may be in a bundle: it is handed on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edgedeploy.errors import BundleError
from edgedeploy.runtime.pipeline.resize import METHODS
from edgedeploy.runtime.pipeline.steps import INPUT_STEPS, OUTPUT_STEPS
from edgedeploy.study.bundle.facts import classes_of
from edgedeploy.study.bundle.golden import SOURCES
from edgedeploy.study.bundle.material import Material

_TEXTS: Final = (".json", ".md")
_LONG: Final = 8
"""Shorter words, shorter ids of cases, and numbers stand in any text."""


def require_nothing_private(part: Path, material: Material) -> None:
    """Raises ``BundleError`` for a file below ``part`` that names a folder of this host, or, where it is a text of ours, a
    private word of the study file or a case."""
    deep, shallow = _places(material)
    words = [_alone(word.encode()) for word in _words(material)]
    for path in sorted(item for item in part.rglob("*") if item.is_file()):
        data = path.read_bytes()
        is_text = path.suffix in _TEXTS
        asked = f"file {path.relative_to(part).as_posix()} of the bundle"
        if any(place.search(data) for place in (*deep, *(shallow if is_text else ()))):
            raise BundleError(asked, "it names a folder of this host", "Report it with that file")
        if is_text and any(word.search(data) for word in words):
            found = "it has a word of the study file that is private, or the id of a case"
            raise BundleError(asked, found, "Rename what has that word, or report it")


def _words(material: Material) -> list[str]:
    """What may not be told: private words and ids of cases, without what the bundle has to name (tensors, classes) and words
    of edgedeploy's own (``grey``), which options of a task name too."""
    named = {name for name in material.cases if len(name) >= _LONG and not name.isdecimal()}
    private = {word for word in material.private if len(word) >= _LONG or not word.isalpha()}
    tensors = {spec.name for spec in (*material.artifact.inputs, *material.artifact.outputs)}
    ours = {*INPUT_STEPS, *OUTPUT_STEPS, *METHODS, *SOURCES, *material.front.metrics, material.task.name}
    return sorted((named | private) - tensors - {*classes_of(material)} - ours)


def _places(material: Material) -> tuple[list[re.Pattern[bytes]], list[re.Pattern[bytes]]]:
    """Folders of this host that a toolchain may have written into a file of its own; those of one name apart, because a
    layer may be called ``/root`` too."""
    base = Path(str(material.study["spec_folder"]))
    found = {material.store.root.absolute(), material.store.root.resolve(), base, base.resolve(), Path.home()}
    sides: tuple[list[re.Pattern[bytes]], list[re.Pattern[bytes]]] = [], []
    for place in sorted(found):
        if len(place.parts) > 1:
            sides[len(place.parts) == 2].append(_alone(str(place).encode()))
    return sides


def _alone(word: bytes) -> re.Pattern[bytes]:
    """The word where no letter or digit goes on before or after it."""
    before, after = (
        (rb"(?<![\w])" if re.match(rb"\w", word) else b""),
        (rb"(?![\w])" if re.search(rb"\w$", word) else b""),
    )
    return re.compile(before + re.escape(word) + after)
