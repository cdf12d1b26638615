"""edgedeploy: get a neural network onto the box it must run on, with proof.

Importing this package costs nothing: names are looked up when first used, so that a board or a product needs numpy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedeploy._version import __version__

if TYPE_CHECKING:
    from edgedeploy.api import Study, load_study

__all__ = ["Study", "__version__", "load_study"]


def __getattr__(name: str) -> Any:
    if name in ("Study", "load_study"):
        from edgedeploy import api

        return getattr(api, name)
    raise AttributeError(f"module 'edgedeploy' has no attribute {name!r}")
