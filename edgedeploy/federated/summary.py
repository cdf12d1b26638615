"""What a site says of its own study: made of the front and of measurements, as the allow-list has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from edgedeploy.errors import OutOfTime, Unstable
from edgedeploy.evidence.front import Front
from edgedeploy.evidence.noninferiority import MIN_UNITS
from edgedeploy.evidence.pick import Endpoint, Judged
from edgedeploy.evidence.standing import Row
from edgedeploy.federated.messages import (
    BaselineSaid,
    BoardSaid,
    CellSaid,
    ConfirmedSaid,
    EndpointSaid,
    NoTime,
    Word,
    rounded,
)
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.variant import Scalar, Variant

P99 = "latency_p99_ns"
NO_TIME: NoTime = "an instruction emulator has no time"
TOO_FEW: NoTime = "fewer than 662 queries"


def board_said(measured: Measurement) -> BoardSaid:
    board = measured.board
    isa = tuple(flag.lower() for flag in sorted(board.isa))
    return BoardSaid(name=board.name, provenance=board.provenance, clock=board.clock, arch=board.arch.lower(), isa=isa)


def baseline_said(measured: Measurement, metric: str, minimized: bool, per_case: bool) -> BaselineSaid:
    values = _values(measured, metric)
    if _hidden(measured, per_case):
        return BaselineSaid(
            artifact=measured.artifact.digest,
            size_bytes=measured.artifact.size_bytes,
            cases=len(measured.cases),
            accuracy=None,
            worst=None,
        )
    return BaselineSaid(
        artifact=measured.artifact.digest,
        size_bytes=measured.artifact.size_bytes,
        cases=len(measured.cases),
        accuracy=rounded(measured.metrics.get(metric)),
        worst=_worst(values, minimized),
        per_case=_shared(values) if per_case else (),
    )


def cell_said(
    candidate: int,
    points: Sequence[Mapping[str, Scalar]],
    front: Front,
    measured: Mapping[str, Measurement],
    metric: str,
    *,
    per_case: bool,
    out_of_time: bool = False,
) -> CellSaid:
    """One of ``points`` as the study found it, which ended because its time was over if ``out_of_time``. Raises
    ``Unstable`` where its run says nothing of it, ``OutOfTime`` where there was none: it is to be tried again."""
    point = points[candidate]
    row = row_of(point, front.rows, points)
    if row is None:
        failed = [item for item in front.failures if _fits(point, item.variant)]
        disturbed = [item.variant for item in front.passing] + [item.variant for item in front.invalid]
        if not failed and any(_fits(point, variant) for variant in disturbed):
            found = "its runs were disturbed or ended otherwise each time: that says nothing of it"
            raise Unstable(
                f"candidate {candidate + 1}", found, "Have the board at rest; the coordinator's --resume asks again"
            )
        if not failed and out_of_time:
            found = "the time was over before it was measured"
            raise OutOfTime(f"candidate {candidate + 1}", found, "Raise [site] wall_clock; the coordinator asks again")
        return CellSaid(candidate=candidate, word="failed", failure=failed[0].kind if failed else "Unsupported")
    item, judged = measured[row.digest], front.decision.judged.get(row.digest)
    minimized = front.metrics[metric].direction == "minimize"
    values = _values(item, metric)
    lost = judged.lost if judged else None
    hidden = _hidden(item, per_case)
    return CellSaid(
        candidate=candidate,
        word=_word(judged),
        variant=row.digest,
        artifact=item.artifact.digest,
        size_bytes=item.artifact.size_bytes,
        weight_bits=_bits(item),
        cases=len(item.cases),
        accuracy=None if hidden else rounded(item.metrics.get(metric)),
        worst=None if hidden else _worst(values, minimized),
        worst_loss=rounded(-lost.worst) if lost and not hidden else None,
        lost=len(lost.lost) if lost else None,
        lost_shown=lost.shown if lost else None,
        endpoints=tuple(endpoint_said(one) for one in judged.endpoints) if judged and not hidden else (),
        p99_ns=_p99(item),
        p99_beside_ns=round(row.beside[P99]) if _p99(item) is not None and P99 in row.beside else None,
        no_p99=_no_p99(item),
        cases_wanted=judged.cases_wanted if judged else None,
        per_case=_shared(values) if per_case else (),
    )


def confirmed_said(front: Front, opened_before: int, *, per_case: bool = False) -> ConfirmedSaid:
    """What the confirmation split says of the front's pick."""
    found = front.confirmation
    if found is None:
        return ConfirmedSaid(outcome="not opened", opened_before=opened_before)
    judged = found.judged
    lost = judged.lost if judged else None
    units = max((one.comparison.units for one in judged.endpoints), default=0) if judged else 0
    hidden = not per_case and units < MIN_UNITS
    endpoints = tuple(endpoint_said(one) for one in judged.endpoints) if judged and not hidden else ()
    return ConfirmedSaid(
        outcome=found.outcome,
        cases=units,
        endpoints=endpoints,
        worst_loss=rounded(-lost.worst) if lost and not hidden else None,
        opened_before=opened_before,
    )


def _hidden(item: Measurement, per_case: bool) -> bool:
    """Whether sums say too much of single cases: the mean and the worst of two are both of them. Nothing can be shown with
    so few, so that no release hangs on them."""
    return not per_case and len(item.cases) < MIN_UNITS


def endpoint_said(one: Endpoint) -> EndpointSaid:
    compared = one.comparison
    gain, lower, upper = rounded(compared.gain), rounded(compared.lower), rounded(compared.upper)
    assert gain is not None
    return EndpointSaid(metric=compared.metric, gain=gain, lower=lower, upper=upper, margin=one.margin)


def row_of(point: Mapping[str, Scalar], rows: Sequence[Row], points: Sequence[Mapping[str, Scalar]] = ()) -> Row | None:
    """The measured variant that the candidate stands for. What the target takes for its own default is left out of a
    variant, so of several the one that says most of what the candidate says; one of which another of ``points`` says more
    is that one's."""
    fitting = [row for row in rows if _fits(point, row.variant) and not _anothers(point, row.variant, points)]
    return max(fitting, key=lambda row: (_said(point, row.variant), row.digest), default=None)


def _fits(point: Mapping[str, Scalar], variant: Variant) -> bool:
    """As :func:`edgedeploy.records.canonical.canonical` keeps or drops what was asked."""
    if variant.recovered or (variant.target, variant.precision) != (point["target"], point["precision"]):
        return False
    bits = int(point.get("weight_bits", 0))
    if variant.weight_bits not in (bits, 0):  # 0: the board chooses, or the target has no others
        return False
    same = all(getattr(variant, name) in (point.get(name, empty), empty) for name, empty in _DEFAULTS)
    return same and ("threads" not in point or variant.threads == point["threads"])


_DEFAULTS: tuple[tuple[str, Scalar], ...] = (("calibration", ""), ("calibration_cases", 0), ("quantizer", ""))


def _anothers(point: Mapping[str, Scalar], variant: Variant, points: Sequence[Mapping[str, Scalar]]) -> bool:
    """Whether another candidate means the variant, and asks for less that it has not."""
    lacking = len(point) - _said(point, variant)
    return any(len(other) - _said(other, variant) < lacking for other in points if _fits(other, variant))


def _said(point: Mapping[str, Scalar], variant: Variant) -> int:
    return sum(getattr(variant, name, None) == value for name, value in point.items())


def _word(judged: Judged | None) -> Word:
    """A variant that is no candidate for the pick (it saves nothing, or misses a limit) is not shown fit to ship."""
    if judged is None:
        return "no verdict"
    if judged.word == "baseline":
        return "no verdict"
    return "not shown" if judged.word == "non-inferior" and not judged.compared else judged.word


def _bits(item: Measurement) -> Literal[7, 8] | None:
    chosen = item.variant.weight_bits or (item.weight_bits.bits if item.weight_bits else 0)
    return 7 if chosen == 7 else 8 if chosen == 8 else None


def _values(item: Measurement, metric: str) -> list[float | None]:
    """In the order of the cases' ids, which do not leave."""
    return [item.cases[case].get(metric) for case in sorted(item.cases)]


def _worst(values: Sequence[float | None], minimized: bool) -> float | None:
    known = [value for value in values if value is not None]
    return rounded((max if minimized else min)(known)) if known else None


def _shared(values: Sequence[float | None]) -> tuple[float | None, ...]:
    return tuple(rounded(value) for value in values)


def _p99(item: Measurement) -> int | None:
    found = item.metrics.get(P99) if item.board.clock == "wall" else None
    return None if found is None else round(found)


def _no_p99(item: Measurement) -> NoTime:
    if _p99(item) is not None:
        return ""
    return TOO_FEW if item.board.clock == "wall" else NO_TIME
