"""Modules that users' own task and target files imported before the public names stood in :mod:`edgedeploy` itself.

Such a file lies beside a study's folder, and ``--resume`` loads it again. Each name is forwarded with a warning that says
what to write instead. Deprecated: to be removed with the minor release after the first one.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

MOVED: Final = {
    "edgedeploy.ability": ("interfaces.ability",),
    "edgedeploy.artifact": ("records.artifact",),
    "edgedeploy.measurement": ("records.metrics", "records.job", "records.board", "records.measurement"),
    "edgedeploy.precision": ("records.precision",),
    "edgedeploy.protocols": ("interfaces.task", "interfaces.target", "interfaces.board"),
    "edgedeploy.variant": ("records.variant", "records.canonical"),
}
"""Where what stood in each module is now, below this package."""


class _Forwarding:
    """Finds the modules of :data:`MOVED`, last of all finders, and makes them of nothing but look-ups."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, _Forwarding) if name in MOVED else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType | None:
        return None

    @staticmethod
    def get_code(name: str) -> None:
        """``python -m`` asks: there is nothing to run."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        module.__doc__ = f"Deprecated: import from edgedeploy. It was {module.__name__}."
        module.__getattr__ = lambda name: _forwarded(module.__name__, name)  # type: ignore[method-assign]


def install() -> None:
    """Let ``import`` find the modules of :data:`MOVED`."""
    if _Forwarding not in sys.meta_path:
        sys.meta_path.append(_Forwarding)


def _forwarded(module: str, name: str) -> Any:
    if name == "__all__":
        return _names(module)
    if not name.startswith("_"):
        for home in MOVED[module]:
            found = importlib.import_module(f"edgedeploy.{home}")
            if hasattr(found, name):
                public = name in sys.modules["edgedeploy"].__all__
                place = "edgedeploy" if public else f"{found.__name__} (which is not public and may move again)"
                # 3: the line that imports it, past the module's own __getattr__
                warnings.warn(f"{module} is no more: import {name} from {place}", FutureWarning, stacklevel=3)
                return getattr(found, name)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def _names(module: str) -> list[str]:
    """What ``from MODULE import *`` gives: the names of its homes, without what those import from other packages."""
    homes = [importlib.import_module(f"edgedeploy.{home}") for home in MOVED[module]]
    found = {name: value for home in homes for name, value in vars(home).items() if not name.startswith("_")}
    return sorted(name for name, value in found.items() if not _is_imported(name, value))


def _is_imported(name: str, value: object) -> bool:
    origin = str(getattr(value, "__module__", "edgedeploy"))
    if isinstance(value, ModuleType):
        return True
    return origin.partition(".")[0] != "edgedeploy" and getattr(sys.modules.get(origin), name, None) is value
