"""What is found in a study's folder and is no evidence: said once, and moved aside by whoever owns the folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from edgedeploy.files import raise_if_disk
from edgedeploy.study.evidence_files import SET_ASIDE, Stray, move_aside

LOG: Final = logging.getLogger(__name__)


class Strays:
    """Of the study in ``root``. While ``moved`` is set, a stray file is also moved, so that what it held is made again."""

    def __init__(self, root: Path) -> None:
        self.moved = False
        self._root = root
        self._told: dict[str, str] = {}

    def told(self) -> tuple[str, ...]:
        """A line each, by the names of the files."""
        return tuple(self._told[name] for name in sorted(self._told))

    def leave_out(self, stray: Stray) -> None:
        """Raises ``StorageError`` where the disk is full."""
        told = f"{stray.name} is left out: {stray.why}"
        if self.moved and os.path.lexists(stray.path):
            try:
                told += f"; it is now {move_aside(stray.path, self._root).relative_to(self._root)}"
            except OSError as exc:
                raise_if_disk(exc, self._root / SET_ASIDE)
                told += f"; it could not be moved to {SET_ASIDE} ({exc.strerror or exc})"
        if self._told.get(stray.name) != told:
            self._told[stray.name] = told
            self._warn(told)

    def leave_out_lines(self, name: str, count: int) -> None:
        """Of a log of times: what is told first of it stays."""
        told = f"{count} damaged line{'s' if count > 1 else ''} of {name} left out: the time account lacks them"
        if self._told.setdefault(name, told) is told:
            self._warn(told)

    def _warn(self, told: str) -> None:
        LOG.warning("study folder %s: %s", self._root, told)
