"""Turns exceptions of toolchains into errors of this project, and reads what they say in words alone.

No toolchain has a type or a field for the node that it refuses, or for what changes in a message from one time to the next:
all that is read out of messages is read here, and ``tests/contract/targets/test_messages.py`` fails where a release says it
otherwise."""

from __future__ import annotations

import linecache
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from edgedeploy.errors import BuildError, EdgeDeployError, Unsupported

_PREAMBLE: Final = ("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")
"""OpenVINO's messages begin with such lines; the cause comes after them."""

_PASSING: Final = re.compile(r"0x[0-9a-f]+|(?<=_)\d+|\S*/")
"""Parts in which two equal messages may differ: addresses, counters that grow within a process, temporary folders."""

_TOOLS: Final = ("torch", "torchao", "torch_pruning", "onnx", "onnx_ir", "onnxscript", "numpy", "edgedeploy")
"""Packages whose lines say nothing to a user about the user's own code."""


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


def lasting(message: str) -> str:
    """A toolchain's message without the parts that differ when it says the same again."""
    return _PASSING.sub("", message)


def with_node(message: str, model: Any) -> str:
    """``message``, with the node's name added when it names only an operator, as some toolchains do."""
    for node in model.graph.node:
        if re.search(rf"\b{re.escape(node.op_type)}\b", message) and node.name not in message:
            return f"{message} (node {node.name!r})"
    return message


@contextmanager
def nodes_named(path: Path) -> Iterator[None]:
    """Adds the node's name to an ``Unsupported`` raised inside, when its message names only an operator."""
    import onnx

    try:
        yield
    except Unsupported as exc:
        try:
            found = with_node(exc.found, onnx.load(str(path), load_external_data=False))
        except Exception:  # a file that is no model has no nodes; protobuf's exception has no public name
            found = exc.found
        raise Unsupported(exc.asked, found, exc.remedy) from exc


def causes(exc: BaseException) -> list[BaseException]:
    """``exc`` and what it was raised from, the innermost last."""
    chain = [exc]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    return chain


def untraceable(exc: BaseException) -> str:
    """Why ``torch.export`` could not follow a forward, with the user's line."""
    innermost = causes(exc)[-1]
    place = next((place for link in reversed(causes(exc)) if (place := users_code(link))), "")
    if "DataDependent" in type(innermost).__name__:
        return f"data-dependent control flow{f' at {place}' if place else ''}"
    return f"{first_line(innermost)}{f' ({place})' if place else ''}"


def users_line(exc: BaseException | None = None) -> str:
    """Where in the user's code an exception came from (None: where we are now), as ``net.py:31``; empty when no frame is
    the user's. A line of a network library counts where there is none of the user's own."""
    frame = _users_frame(exc)
    return f"{Path(frame[0]).name}:{frame[1]}" if frame else ""


def users_code(exc: BaseException) -> str:
    """:func:`users_line` with the text of the line: ``net.py:31: if image.sum() > 0:``."""
    frame = _users_frame(exc)
    text = linecache.getline(*frame).strip() if frame else ""
    return f"{users_line(exc)}: {text}" if text else users_line(exc)


def _users_frame(exc: BaseException | None) -> tuple[str, int] | None:
    steps = traceback.walk_tb(exc.__traceback__) if exc else reversed(list(traceback.walk_stack(sys._getframe(1))))
    return _innermost(steps)


def _innermost(steps: Iterable[tuple[FrameType, int]]) -> tuple[str, int] | None:
    packages = Path(sysconfig.get_path("purelib"))
    standard = Path(sysconfig.get_path("stdlib"))
    here = Path(__file__).parents[1]
    own, library = None, None
    for frame, line in steps:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(packages):
            if file.relative_to(packages).parts[0] not in _TOOLS:
                library = str(file), line
        elif not file.is_relative_to(here) and not file.is_relative_to(standard) and file.suffix == ".py":
            own = str(file), line
    return own or library
