"""What the calibration and the rounds across sites need beside a study's packages, and how its absence is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgedeploy.errors import TargetUnavailable


@contextmanager
def flower(asked: str) -> Iterator[None]:
    """Around imports of Flower's for ``asked``. Raises ``TargetUnavailable``, which names the extra, where it is missing."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "flwr":
            raise
        raise TargetUnavailable(asked, "flwr is not installed", "pip install 'edgedeploy[federated]'") from None
