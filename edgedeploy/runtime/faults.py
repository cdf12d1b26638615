"""Failures on a board, as codes that the host maps to its own errors."""

from __future__ import annotations

import errno
import re

DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT)

_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|bad allocation|out of memory|cannot allocate memory|failed to allocate|BFCArena", re.IGNORECASE
)
"""What runtimes say where memory ends: they have no type for it."""

_NOT_LOADED = re.compile(
    r"static TLS block|cannot open shared object file|undefined symbol|GLIBC(XX)?_|version `[^']+' not found"
    r"|invalid ELF header|wrong ELF class|failed to map segment|binary incompatibility|numpy\.dtype size changed"
    r"|compiled (against|using) (API|ABI|NumPy)|_ARRAY_API not found|multiarray failed to import"
)
"""What the dynamic loader and numpy say of a library that does not fit the machine, or another library."""


class RuntimeFault(Exception):
    """``cause`` is one of the codes below, ``message`` one sentence for people.

    About the artifact: ``open_failed``, ``run_failed``, ``non_finite``, ``constant_output``, ``memory_limit``,
    ``memory_exceeded``, ``killed_at_limit``, ``killed``, ``worker_crashed``, ``time_limit``, ``unfit_batch``. About what
    else ran there: ``memory_taken``.
    About the board: ``runtime_missing``, ``runtime_broken``, ``runtime_too_old``, ``disk_full``, ``corrupt_blob``,
    ``bad_job``, ``unfit_stages``, ``codec_missing``, ``codec_differs``, ``output_lost``, ``power_mode_refused``,
    ``supervisor_died``, ``rebooted``, ``hung``, ``internal``.
    About who holds it: ``busy``, ``stale_token``, ``lease_lost``. ``side`` is the job's side that failed, where it is
    one's alone.
    """

    def __init__(self, cause: str, message: str, side: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.side = side

    def as_json(self) -> dict[str, str]:
        return {"fault": self.cause, "message": self.message}


BUNDLE_REMEDIES = {
    "unsigned": "Have its maker sign it, or say that no signature is wanted (--unsigned, in Python trust=None)",
    "untrusted": "Ask its maker which key signs, and give that public key",
    "tampered": "Get it again from its maker; do not use this one",
    "malformed": "Get it again from its maker, made by `edgedeploy bundle`",
    "incompatible": "Take a bundle that was made for this machine and runtime, or change them",
    "wrong_answer": "Do not use it here: this machine does not compute what was measured",
    "downgrade": "Take a later release",
    "expired": "Take a later release, which its maker still stands for",
    "missing_state": "Restore the state of this device, or set the device up anew",
    "unreadable": "Check the path, the permissions and the disk",
}
"""Each reason for which a bundle is refused, with what to do next."""


class BundleError(Exception):
    """A bundle is refused. ``reason`` is a key of :data:`BUNDLE_REMEDIES`, ``message`` one clause about what was found;
    ``remedy`` says what to do next."""

    def __init__(self, reason: str, message: str, remedy: str = "") -> None:
        super().__init__(reason, message, remedy)
        self.reason = reason
        self.message = message
        self.remedy = remedy or BUNDLE_REMEDIES[reason]

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}. {self.remedy}"

    def as_json(self) -> dict[str, str]:
        return {"refused": self.reason, "message": self.message, "remedy": self.remedy}


def lacks_memory(exc: BaseException) -> bool:
    """Whether ``exc`` says that there was no more memory."""
    return isinstance(exc, MemoryError) or _OUT_OF_MEMORY.search(str(exc)) is not None


def from_exception(exc: BaseException, cause: str) -> RuntimeFault:
    """``exc`` as a fault. A missing module, one that does not load, lack of memory and a full disk have their own codes;
    anything else gets ``cause``."""
    if isinstance(exc, RuntimeFault):
        return exc
    text = f"{type(exc).__name__}: {exc}"
    if isinstance(exc, ModuleNotFoundError):
        return RuntimeFault("runtime_missing", text)
    if isinstance(exc, ImportError) or _NOT_LOADED.search(text):
        return RuntimeFault("runtime_broken", text)
    if lacks_memory(exc):
        return RuntimeFault("memory_exceeded", text)
    if isinstance(exc, OSError) and exc.errno in DISK_ERRNOS:
        return RuntimeFault("disk_full", text)
    return RuntimeFault(cause, text)
