"""What runs on a board: standard library and numpy only; a backend is imported when its session opens.

The same files are packed into one zip that is pushed to boards (``python agent.pyz COMMAND``), so they keep to Python 3.8,
in syntax and library: ``scripts/check`` types them against that library, and tests run them there.

A product takes one name from here, :func:`load`, which is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgedeploy.runtime.bundle.load import load

__all__ = ["OLDEST_PYTHON", "load"]

OLDEST_PYTHON = (3, 8)
"""Of a board, and so of every session that is brought there."""


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgedeploy.runtime.bundle import load as module

    return module.load
