"""A study's folder, read back: its spec, its measurements, its front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgedeploy.errors import DataError, EdgeDeployError, SpecError
from edgedeploy.evidence.bootstrap import RESAMPLES
from edgedeploy.evidence.confirm import confirmation_of
from edgedeploy.evidence.derived import Derived, without_series
from edgedeploy.evidence.front import Front, build_front
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Variant
from edgedeploy.records.weights import BaselineWeights
from edgedeploy.spec.goals import constraints_of, min_effects_of, objectives_of, rules_of
from edgedeploy.spec.study import StudySpec, parse_spec
from edgedeploy.study.clusters import kept_clusters
from edgedeploy.study.impossible import kept_proofs
from edgedeploy.study.index import Index
from edgedeploy.study.reading import FAULTS
from edgedeploy.study.store import Store
from edgedeploy.study.told import early_end, passing_failures


def stored_spec(store: Store) -> StudySpec:
    """The spec a study's folder was made with."""
    return parse_spec(store.study_text(), store.root / "study.toml", kept=True)[0]


def read_measurement(folder: str | Path, variant: str) -> Measurement:
    """The valid measurement whose digest begins with ``variant``. Raises ``SpecError`` when there is not exactly one."""
    store = Store(Path(folder))
    store.study()
    known = {item.digest: item for item in store.measurements()}
    fitting = [digest for digest in known if digest.startswith(variant)]
    if len(fitting) != 1:
        found = f"{len(fitting)} measured variants have a digest that begins so"
        raise SpecError(f"variant {variant}", found, f"Measured: {', '.join(known) or 'none'}")
    return known[fitting[0]]


def evidence_of(store: Store) -> list[Measurement]:
    """All measurements of the search with their raw series, invalid ones last: what :func:`summarised` is held against."""
    return [*store.measurements(), *store.invalid()]


def open_index(store: Store) -> Index | None:
    """The index of a study's folder; None where there is no study, or it cannot be read."""
    try:
        return Index(store, store.study(), stored_spec(store)) if store.exists() else None
    except (EdgeDeployError, *FAULTS):  # told by whoever reads the study itself
        return None


def summarised(
    store: Store, study: Mapping[str, Any], spec: StudySpec, resamples: int = RESAMPLES
) -> tuple[list[Measurement], dict[str, Derived]]:
    """As :func:`evidence_of`, but without raw series, and for :func:`front_of` what was made of these. Reads only what the
    folder's index lacks, and adds it to the index where it may."""
    index = Index(store, study, spec, resamples)
    found = index.summaries()
    if resamples == RESAMPLES:
        index.save_unless_owned()
    measurements = [item.measurement for item in found]
    measurements += [without_series(item) for item in store.invalid()]
    return measurements, {item.measurement.digest: item.derived for item in found}


def front_of(
    study: Mapping[str, Any],
    spec: StudySpec,
    measurements: Sequence[Measurement],
    resamples: int = RESAMPLES,
    derived: Mapping[str, Derived] | None = None,
) -> Front:
    """The front of ``measurements`` by the rules of the study; ``study`` is the content of its ``study.json``, ``derived``
    as in :func:`build_front`."""
    task_metrics = {name: MetricInfo.from_json(info) for name, info in study["task_metrics"].items()}
    metrics = spec.metric_table(task_metrics)
    front = build_front(
        measurements,
        objectives_of(spec, metrics),
        constraints_of(spec, metrics),
        baseline_digests=[Variant.from_json(item).digest for item in study["baselines"]],
        seed=spec.study.seed,
        min_effect=min_effects_of(spec, metrics),
        margin=None,
        rules=rules_of(spec, metrics),
        metrics=task_metrics,
        resamples=resamples,
        several_boards=len(study.get("boards", ())) > 1,
        derived=derived,
    )
    clusters = kept_clusters(study)
    return replace(
        front,
        weights=weights_of(study),
        clusters_named=clusters.named if clusters else None,
        study_boards=tuple(study.get("boards") or [board.name for board in spec.boards]),
    )


def weights_of(study: Mapping[str, Any]) -> BaselineWeights | None:
    """Where the baseline's weights come from; None for a ready-made model, and for a folder that does not say so. Raises
    ``DataError`` for a ``study.json`` that was damaged."""
    kept = study.get("baseline_weights")
    try:
        return BaselineWeights.from_json(kept) if kept else None
    except (TypeError, ValueError, AttributeError) as exc:
        raise DataError("baseline_weights in study.json", str(exc), "Put a copy of the file back") from None


def read_front(folder: str | Path, *, resamples: int = RESAMPLES) -> Front:
    """The front, recomputed from the stored measurements alone. Raises ``SpecError`` for a folder without a study."""
    store = Store(Path(folder))
    study, spec = store.study(), stored_spec(store)
    measurements, derived = summarised(store, study, spec, resamples)
    front = front_of(study, spec, measurements, resamples, derived)
    return with_failures(front, store)


def reason_of_pick(front: Front) -> str:
    """Why the pick was picked, and whether it is shown to be faster; empty without one."""
    row = front.row(front.pick.digest) if front.pick else None
    if front.pick is None or row is None:
        return ""
    slow = row.verdict.not_shown if row.verdict else ""
    return f"{front.pick.reason}; not shown: {slow}" if slow else front.pick.reason


def with_failures(front: Front, store: Store) -> Front:
    """The front, what the confirmation split says of its pick, and what gave no number: evidence, and what the log of
    the runs alone remembers."""
    failures, passing, ended = store.failures(), passing_failures(store), early_end(store)
    confirmation = confirmation_of(front, store.confirmations() if front.pick else (), store.openings())
    return replace(
        front,
        failures=failures,
        passing=passing,
        ended=ended,
        left_out=store.left_out(),
        confirmation=confirmation,
        proofs=kept_proofs(store),
    )
