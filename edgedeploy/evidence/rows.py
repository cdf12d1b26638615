"""A front as rows of plain values, one per variant: for data frames, and for whatever else works on tables."""

from __future__ import annotations

from typing import Any

from edgedeploy.evidence.front import Front
from edgedeploy.evidence.pareto import Shortfall
from edgedeploy.records.measurement import Failure
from edgedeploy.records.variant import Variant

Row = dict[str, Any]


def front_rows(front: Front) -> list[Row]:
    """Every variant with an outcome: members of the front first, failures last. A metric has up to four columns, in base
    units: its name, ``_low`` and ``_high`` (the interval), and ``_baseline_beside`` (what ran interleaved with it)."""
    picked = front.pick.digest if front.pick else None
    rows = []
    for row in front.rows:
        found = _settings(row.variant)
        found |= {"status": row.status, "pick": row.digest == picked, "baseline": row.baseline, "board": row.board}
        found |= {"verdict": row.verdict.word if row.verdict else None, "file": row.file}
        found["p_on_front"] = row.p_on_front
        judged = front.decision.judged.get(row.digest)
        found["against_baseline"] = judged.word if judged else None
        found["reason"] = _reasons(row.shortfalls, front) or row.dominated_by or ""
        for name, estimate in row.estimates.items():
            found[name] = estimate.value
            if estimate.low is not None:
                found |= {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            if name in row.beside:
                found[f"{name}_baseline_beside"] = row.beside[name]
        rows.append(found)
    rows += [_failed(item, "failed") for item in front.failures]
    return rows + [_failed(item, "no number yet") for item in front.passing]


def _failed(failure: Failure, status: str) -> Row:
    reason = f"{failure.kind} in {failure.phase}: {failure.message}"
    return {**_settings(failure.variant), "status": status, "pick": False, "baseline": False, "reason": reason}


def _settings(variant: Variant) -> Row:
    return {
        "digest": variant.digest,
        "variant": variant.label,
        "target": variant.target,
        "recipe": variant.recipe,
        "precision": variant.precision,
        "width": variant.width,
        "allocation": variant.allocation,
        **{f"arch.{name}": value for name, value in variant.arch},
        **{f"shrink.{name}": value for name, value in variant.shrink.as_json().items()},
        **({"storage": variant.storage} if variant.storage else {}),
        "threads": variant.threads,
        "instances": variant.instances,
        "max_batch": variant.max_batch,
        "image_codec": variant.image_codec,
    }


def _reasons(shortfalls: tuple[Shortfall, ...], front: Front) -> str:
    return "; ".join(item.text(front.unit(item.constraint.metric)) for item in shortfalls)
