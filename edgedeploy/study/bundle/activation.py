"""Activates a bundle on this machine, with the code that a product's device has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgedeploy.errors import Busy
from edgedeploy.runtime.bundle.activate import Activation, activate, roll_back
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.study.bundle.refused import refusals_told


def activate_bundle(bundle: Path, trust: Path | None, root: Path) -> Activation:
    """See :func:`edgedeploy.runtime.bundle.activate.activate`. Raises ``BundleError``, whose text begins with the
    reason, and ``Busy``."""
    with _told(f"activate {bundle}", root):
        return activate(bundle, trust=trust, root=root)


def go_back(trust: Path | None, root: Path) -> Activation:
    """See :func:`edgedeploy.runtime.bundle.activate.roll_back`. Raises as :func:`activate_bundle`."""
    with _told("go back to the release before", root):
        return roll_back(trust=trust, root=root)


@contextmanager
def _told(asked: str, root: Path) -> Iterator[None]:
    with refusals_told(asked):
        try:
            yield
        except RuntimeFault as exc:
            raise Busy(f"{asked} at {root}", exc.message, "Wait for it, and try again") from exc
