"""What a board's code says of a bundle, as an error of this host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgedeploy import errors
from edgedeploy.runtime import faults


@contextmanager
def refusals_told(asked: str) -> Iterator[None]:
    """Turns a refusal in the block into :class:`edgedeploy.errors.BundleError`."""
    try:
        yield
    except faults.BundleError as exc:
        raise errors.BundleError(asked, f"{exc.reason}: {exc.message}", exc.remedy) from exc
