"""Which measurements may stand on one front."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgedeploy.errors import SpecError
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import ACROSS_BOARDS, BOARD_METRICS


def require_comparable(valid: Iterable[Measurement], across: Sequence[str] | None) -> None:
    """One provenance, one split, the same cases, one measurement per variant; one machine, or boards of one kind and
    objectives (``across``) that compare across them."""
    items = list(valid)
    digests = [item.digest for item in items]
    if len(set(digests)) != len(digests):
        raise ValueError("a variant was given with two valid measurements: keep one per variant")
    kinds: list[tuple[str, set[str]]] = [
        ("provenances", {item.provenance for item in items}),
        ("splits", {item.split for item in items}),
    ]
    names = {item.board.name for item in items}
    if across is None:
        kinds += [
            ("boards", names),
            ("machines", {"; ".join(item.board.other_machine(items[0].board)) or "the first" for item in items}),
            ("processors", {"; ".join(item.board.other_processor(items[0].board)) or "the first" for item in items}),
        ]
    elif len(names) > 1:
        kinds.append(
            ("kinds of board", {"; ".join(item.board.unlike(items[0].board)) or "the first" for item in items})
        )
        own = sorted(name for name in across if name in BOARD_METRICS and name not in ACROSS_BOARDS)
        if own:
            raise SpecError(
                "make a front",
                f"{', '.join(own)} of {len(names)} boards do not compare",
                "What compares across boards is the ratio to the baseline on the same board",
            )
    for what, found in kinds:
        if len(found) > 1:
            raise SpecError(
                "make a front",
                f"the measurements are of {len(found)} {what}: {', '.join(sorted(found))}",
                "Make one front for each: such numbers say nothing about each other",
            )
    _require_same_cases(items)


def _require_same_cases(items: Sequence[Measurement]) -> None:
    """A mean over other cases is another number. Measurements that keep no case have none to compare."""
    scored = sorted((item for item in items if item.cases), key=lambda item: (item.created_utc, item.digest))
    for item in scored[1:]:
        first, here = set(scored[0].cases), set(item.cases)
        if here != first:
            came, went = sorted(here - first), sorted(first - here)
            named = ", ".join([f"+{name}" for name in came[:3]] + [f"-{name}" for name in went[:3]])
            raise SpecError(
                "make a front",
                f"{item.variant.label} was measured on other {item.split} cases than {scored[0].variant.label}: "
                f"{len(came)} came, {len(went)} went ({named})",
                "Measure all variants on the same cases: search again in another --out",
            )
