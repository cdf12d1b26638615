"""What one run of a study may be told beside its study file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import SpecError

_PASSWORD: Final = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]*@|(?<=[?&])(password|passfile|sslpassword)=[^&\s]*")


@dataclass(frozen=True)
class RunOptions:
    """Options of :meth:`edgedeploy.Study.run`.

    ``out`` is the study's folder, ``studies/NAME`` when left out. ``trials`` replaces the study file's. ``resume`` goes on
    with what the folder holds. ``board`` is the board to measure on, the study file's first when left out; ``boards`` names
    several boards of one kind that share the work. ``storage`` is the URL of a PostgreSQL database for the history of
    proposals, ``dask`` the address of a scheduler whose workers have the boards. Without ``confirm`` the confirmation split
    stays closed. Raises ``SpecError`` for options that contradict each other.
    """

    out: str | Path | None = None
    trials: int | None = None
    resume: bool = False
    board: str | None = None
    boards: Sequence[str] = ()
    storage: str | None = None
    dask: str | None = None
    confirm: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.boards, str):
            raise SpecError("boards", f"a list of names is expected, but got {self.boards!r}", "Write [...] around it")
        object.__setattr__(self, "boards", tuple(self.boards))
        if self.board is not None and self.boards:
            raise SpecError("board and boards", "both were given", "Name one board or several")
        if self.trials is not None and self.trials < 1:
            raise SpecError("trials", f"expected a number >= 1, but got {self.trials}")

    def shown(self) -> dict[str, Any]:
        """The options that differ from their defaults, as JSON, without passwords."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {field.name: _shown(given[field.name]) for field in fields(self) if given[field.name] != field.default}


def _shown(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return _PASSWORD.sub(_without_password, str(value)) if isinstance(value, (str, Path)) else value


def _without_password(found: re.Match[str]) -> str:
    user, key = found.groups()
    return f"{key}=(left out)" if key else f"{user}:(left out)@"
