"""What one run of a study may be told beside its study file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import SpecError

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class RunOptions:
    """Options of :meth:`edgedeploy.Study.run`.

    ``out`` is the study's folder, ``studies/NAME`` when left out. ``trials`` replaces the study file's. ``resume`` goes on
    with what the folder holds, ``task_changed`` also where the task's files have changed since, and with ``retry_failed``
    what is stored as a variant's failure is set aside and tried again. ``board`` is the board to measure on, the study
    file's first when left out; ``boards`` names several boards of one kind that share the work.
    ``storage`` is the URL of a PostgreSQL database for the history of proposals, ``dask`` the address of a scheduler whose
    workers have the boards, ``mlflow`` the address that the variants are logged to at the end. Without ``confirm`` the
    confirmation split stays closed. Raises ``SpecError`` for options of another type, and for those that contradict each
    other.
    """

    out: str | Path | None = None
    trials: int | None = None
    resume: bool = False
    board: str | None = None
    boards: Sequence[str] = ()
    storage: str | None = field(default=None, repr=False)
    dask: str | None = None
    confirm: bool = True
    task_changed: bool = False
    mlflow: str | None = field(default=None, repr=False)
    retry_failed: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        object.__setattr__(self, "boards", tuple(self.boards))
        if self.board is not None and self.boards:
            raise SpecError("board and boards", "both were given", "Name one board or several")
        if self.retry_failed and not self.resume:
            found = "it goes with resume: a folder that is begun anew has no failures"
            raise SpecError("retry_failed", found, "Give both")
        if self.dask is not None and (self.board is not None or self.boards):
            found = "both were given, and with dask the scheduler's workers have the boards"
            raise SpecError("dask and board or boards", found, "Give one of them")
        double = sorted({name for name in self.boards if self.boards.count(name) > 1})
        if double:
            raise SpecError("boards", f"{', '.join(double)} stands twice", "Name each board once")
        if self.trials is not None and self.trials < 1:
            raise SpecError("trials", f"expected a number >= 1, but got {self.trials}", "Leave it out for the file's")

    def _check_types(self) -> None:
        if self.out is not None and (not isinstance(self.out, (str, Path)) or "\0" in str(self.out)):
            raise SpecError("out", f"a path is expected, but got {self.out!r}", "Leave it out for studies/NAME")
        if self.trials is not None and (isinstance(self.trials, bool) or not isinstance(self.trials, int)):
            found = f"expected a whole number >= 1, but got {self.trials!r}"
            raise SpecError("trials", found, "Leave it out for the file's")
        for name in ("resume", "confirm", "task_changed", "retry_failed"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(name, f"True or False is expected, but got {getattr(self, name)!r}", "Give one of them")
        if isinstance(self.boards, str):
            raise SpecError("boards", f"a list of names is expected, but got {self.boards!r}", "Write [...] around it")
        if not isinstance(self.boards, Sequence) or not all(isinstance(name, str) for name in self.boards):
            found = f"a list of names is expected, but got {self.boards!r}"
            raise SpecError("boards", found, 'Such as boards=["first", "second"]')
        for name, example in (
            ("board", "the board's name"),
            ("storage", "a URL"),
            ("dask", "tcp://host:8786"),
            ("mlflow", "a URI"),
        ):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                found = f"a text is expected, but got {type(value).__name__}"  # not the value: it may hold a password
                raise SpecError(name, found, f"Give {example}, or leave it out")

    def shown(self) -> dict[str, Any]:
        """The options that differ from their defaults, as JSON. Of ``storage`` it is the scheme alone: a password may stand
        anywhere in what was meant as a URL."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            item.name: _shown(item.name, given[item.name]) for item in fields(self) if given[item.name] != item.default
        }


def _shown(name: str, value: object) -> object:
    if name == "storage" or (name in ("dask", "mlflow") and "@" in str(value)):
        scheme = _SCHEME.match(str(value))
        return f"{scheme.group()}(left out)" if scheme else "a database" if name == "storage" else "(left out)"
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
