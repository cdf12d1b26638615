"""Every error a user can meet, as one tree.

    EdgeDeployError                exit code
    |-- SpecError                  2   what the user wrote: file and key, what was expected, the nearest known name
    |-- DataError                  2   what the user's data holds: the file, what was found
    |-- TargetUnavailable          2   a toolchain is not installed: names the extra that brings it
    |-- BuildError                 4   an artifact could not be made
    |   |-- Unsupported            4   the target cannot express this variant: data about the variant
    |   `-- Unrepeatable           4   the toolchain gave two results for one build: says nothing about the variant
    |-- BoardError                 3   the board failed: retried, never counted against a variant
    |   |-- Unreachable            3   no answer, or not in time: waited for
    |   |   |-- LoginRefused       3   the board answers, and lets nobody in: not waited for
    |   |   `-- UnknownHost        3   no address is known by its name: waited for where it was reached before
    |   |-- HostKeyError           3   the board's key is unknown or changed: never retried
    |   |-- Busy                   3   somebody else holds the board
    |   |-- Rebooted               3   the board restarted during a run: the attempt is discarded
    |   |-- Hung                   3   a run does not end and cannot be stopped
    |   |-- Quarantined            3   the board is not used any more after such failures, until somebody releases it
    |   `-- CommandFailed          3   the board answered with a failure of its own (disk full, no runtime)
    |-- StorageError               3   this host's disk or the study's database cannot be used: no measurement is lost
    |   `-- DamagedFile            3   a file of ours on this host is not what it was: it is made anew
    |-- OutOfTime                  4   the study's time ended during a training, whose checkpoint is kept
    |-- MeasurementError           4   the run gave no number that can be defended
    |   |-- DidNotRun              4   the artifact crashed, was refused, or asked for too much: shown twice before it counts
    |   |-- Unstable               4   conditions drifted, or it ended otherwise each time: says nothing about the variant
    |   `-- ParityError            4   the artifact does not compute what its reference computes
    |-- GoalNotMet                 1   nothing satisfies the constraints
    `-- BundleError                2   a bundle is not what it claims to be

A bug of ours is outside the tree and keeps its traceback. Each message says what was asked, what was found and
what to do next; ``asked``, ``found`` and ``remedy`` keep the three apart for machines. Where code acts on more than that,
the error has it as a value: no code reads it out of the sentences, which are for people and may change.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

DISK_REMEDIES: Final = {
    errno.ENOSPC: "Free space there",
    errno.EDQUOT: "Free space there, or have the user's quota raised",
    errno.EFBIG: "Allow larger files there (`ulimit -f`, or another file system)",
    errno.EIO: "Check that disk",
    errno.EROFS: "Make that file system writable, or choose another place",
}
"""What a failing disk answers, and what to do about it."""


@dataclass(frozen=True)
class Setting:
    """A key of a study file that an error is about: ``task.options.shapes.image``. ``value`` is the one that it has there,
    as TOML; empty where that is not the matter."""

    key: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.key} = {self.value}" if self.value else self.key


@dataclass(frozen=True)
class Advice:
    """A remedy that says which keys of a study file to write: their values, as TOML, by name. ``where`` is their table;
    the sentence has ``before`` and ``after`` around them."""

    before: str
    settings: Mapping[str, str]
    where: str = ""
    after: str = ""

    def __str__(self) -> str:
        told = ", ".join(f"{key} = {value}" for key, value in self.settings.items())
        return f"{self.before} {told}{f' in {self.where}' if self.where else ''}{self.after}"


@dataclass(frozen=True)
class OpenShape:
    """An input of a model whose file leaves its shape open. ``sizes`` has each dimension: its size where the file or a
    batch of 1 decides it, else its name, ``?`` where it has none. None where the file does not say how many there are."""

    name: str
    sizes: tuple[int | str, ...] | None

    @property
    def decided(self) -> tuple[int, ...] | None:
        """The shape, where nothing has to be asked."""
        if self.sizes is None or not all(isinstance(size, int) for size in self.sizes):
            return None
        return tuple(int(size) for size in self.sizes)


class EdgeDeployError(Exception):
    """Base of every error that is not a bug of edgedeploy. The command line exits with ``exit_code``."""

    exit_code = 3

    def __init__(self, asked: str | Setting, found: str, remedy: str | Advice = "") -> None:
        self.setting = asked if isinstance(asked, Setting) else None
        self.advice = remedy if isinstance(remedy, Advice) else None
        self.asked = str(asked)
        self.found = found
        self.remedy = str(remedy)
        super().__init__(self.asked, found, self.remedy)

    def __str__(self) -> str:
        text = f"{self.asked}: {self.found}"
        return f"{text}. {self.remedy}" if self.remedy else text

    def as_json(self) -> dict[str, str]:
        return {
            "error": type(self).__name__,
            "asked": self.asked,
            "found": self.found,
            "remedy": self.remedy,
        }


class SpecError(EdgeDeployError):
    exit_code = 2


class DataError(EdgeDeployError):
    exit_code = 2


class TargetUnavailable(EdgeDeployError):
    exit_code = 2


class BuildError(EdgeDeployError):
    exit_code = 4


class Unsupported(BuildError):
    """``open_shape`` is the input whose shape has to be named, where that is the reason."""

    def __init__(
        self, asked: str | Setting, found: str, remedy: str | Advice = "", open_shape: OpenShape | None = None
    ) -> None:
        super().__init__(asked, found, remedy)
        self.open_shape = open_shape


class Unrepeatable(BuildError):
    pass


class BoardError(EdgeDeployError):
    exit_code = 3


class Unreachable(BoardError):
    pass


class LoginRefused(Unreachable):
    pass


class UnknownHost(Unreachable):
    pass


class HostKeyError(BoardError):
    pass


class Busy(BoardError):
    pass


class Rebooted(BoardError):
    pass


class Hung(BoardError):
    pass


class Quarantined(BoardError):
    pass


class CommandFailed(BoardError):
    pass


class StorageError(EdgeDeployError):
    exit_code = 3


class DamagedFile(StorageError):
    pass


class OutOfTime(EdgeDeployError):
    exit_code = 4


class MeasurementError(EdgeDeployError):
    """``cause`` is the agent's word for what ended the run (:class:`edgedeploy.runtime.faults.RuntimeFault`), where an agent
    said one."""

    exit_code = 4

    def __init__(self, asked: str | Setting, found: str, remedy: str | Advice = "", cause: str = "") -> None:
        super().__init__(asked, found, remedy)
        self.cause = cause


class DidNotRun(MeasurementError):
    pass


class Unstable(MeasurementError):
    pass


class ParityError(MeasurementError):
    pass


class GoalNotMet(EdgeDeployError):
    exit_code = 1


class BundleError(EdgeDeployError):
    exit_code = 2


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` may be a slip of; None when none is close."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the known name closest to ``name``, or all of them when none is close."""
    names = sorted(known)
    close = closest(name, names)
    return f"Did you mean {close!r}?" if close is not None else f"Known: {', '.join(names) or 'none'}."
