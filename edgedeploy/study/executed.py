"""Whether a board still runs an artifact in the precisions that it was built in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgedeploy.errors import CommandFailed, MeasurementError
from edgedeploy.reference.parity import check_executed


def require_executed(precisions: Sequence[str], executed: Mapping[str, int], board: str) -> None:
    """``precisions`` are the model's and those of its plan, ``executed`` counts layers by what ran. Raises
    ``CommandFailed``: of an artifact that was measured before, a fallback is the board's doing."""
    first, *planned = precisions
    try:
        check_executed(first, executed, planned)
    except MeasurementError as exc:
        raise CommandFailed(f"board {board!r}: {exc.asked}", exc.found, exc.remedy) from None
