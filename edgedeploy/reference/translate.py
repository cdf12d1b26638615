"""Turns exceptions of toolchains into errors of this project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from edgedeploy.errors import BuildError, EdgeDeployError

_PREAMBLE: Final = ("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")
"""OpenVINO's messages begin with such lines; the cause comes after them."""


@contextmanager
def translated(asked: str, remedy: str, kind: type[BuildError] = BuildError) -> Iterator[None]:
    """Turn whatever a toolchain raises into ``kind``.

    Our own errors and errors of this host (disk full, out of memory) pass unchanged: they say nothing about the variant
    and must not be stored as its failure.
    """
    try:
        yield
    except (EdgeDeployError, OSError, MemoryError):
        raise
    except Exception as exc:  # toolchains have no common base class, several raise bare RuntimeError
        raise kind(asked, first_line(exc), remedy) from exc


def first_line(exc: BaseException) -> str:
    """The first line of a toolchain's message after its preamble; the exception's class name when there is none."""
    lines = (line.strip() for line in str(exc).splitlines())
    return next((line for line in lines if line and not line.startswith(_PREAMBLE)), type(exc).__name__)[:400]
