"""``edgedeploy measure``: one model or artifact on one board, interleaved with its float baseline, without a study."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError, SpecError
from edgedeploy.evidence.bootstrap import Estimate, Resampler
from edgedeploy.evidence.metrics import board_metrics
from edgedeploy.evidence.verdict import Verdict, latency_verdict
from edgedeploy.files import new_folder, write_json
from edgedeploy.interfaces.target import Target
from edgedeploy.records.artifact import MANIFEST, Artifact
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.precision import AS_GIVEN, CALIBRATED
from edgedeploy.reference.external import has_weights_file, weights_file
from edgedeploy.reference.parity import UNJUDGED, Judged, judge
from edgedeploy.runtime.files import sha256_file
from edgedeploy.spec.boards import BoardTable, board_of_word
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.study.as_given import check_given
from edgedeploy.study.oneshot.desk import Desk, Tell, desk, target_named
from edgedeploy.study.oneshot.folder import artifact_of, is_quantized
from edgedeploy.study.oneshot.model import Inputs, OneModel, cases_of, random_cases, take

MEDIAN: Final = "latency_p50_ns"
NO_PARITY: Final = "outputs were not compared with the float model's: random inputs say little of that"


@dataclass(frozen=True)
class Measured:
    """What one board said of one model. ``estimates`` are its numbers with their intervals; a metric without one is in
    ``missing`` with its reason.

    ``baseline`` is the median latency of the float model that ran interleaved in the same session, and ``verdict`` the
    comparison of both; None where the model is its own baseline, or nothing was timed. ``inputs`` says what it ran on.
    """

    measurement: Measurement
    what: str
    estimates: Mapping[str, Estimate]
    baseline: Estimate | None
    verdict: Verdict | None
    inputs: str
    notes: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """False for a run whose conditions drifted; ``measurement.cause`` says how."""
        return self.measurement.valid

    def as_json(self) -> dict[str, Any]:
        """Without the raw series, which ``measurement.as_json()`` has."""
        found = self.measurement
        return {
            "what": self.what,
            "variant": found.variant.as_json(),
            "artifact": found.artifact.as_json(),
            "board": found.board.as_json(),
            "provenance": found.provenance,
            "valid": found.valid,
            "cause": found.cause,
            "created_utc": found.created_utc,
            "estimates": {name: item.as_json() for name, item in self.estimates.items()},
            "missing": dict(found.missing),
            "executed": dict(found.candidate.executed),
            "baseline_p50_ns": self.baseline.as_json() if self.baseline else None,
            "latency_verdict": self.verdict.as_json() if self.verdict else None,
            "parity": dict(found.parity),
            "weight_bits": found.weight_bits.as_json() if found.weight_bits else None,
            "inputs": self.inputs,
            "notes": list(self.notes),
        }


def measure(
    model: str | Path,
    board: BoardTable | str = "local",
    *,
    target: str = "onnxruntime",
    precision: str = "float32",
    inputs: str | Path | None = None,
    images: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    threads: int = 0,
    table: MeasureTable | None = None,
    folder: Path | None = None,
    tell: Tell = lambda line: None,
) -> Measured:
    """Measure ``model`` on ``board``: an ONNX file, which is built for ``target`` in ``precision``, or the folder of an
    artifact, which has its own. ``board`` is a table, or a word as ``--board`` takes it.

    - ``inputs``: images, ``.npy`` or ``.npz`` files to run on; seeded random ones when left out.
    - ``threads``: those of the session; the board's cores, 4 at most, when 0.
    - ``table``: how to measure, as ``[measure]`` in a study file, whose paths are relative to ``folder``.

    Raises ``SpecError``, ``DataError``, ``TargetUnavailable``, ``BuildError``, ``BoardError``, ``MeasurementError``.
    """
    subject = _subject(Path(model), target, precision, shapes or {})
    cases = _cases(subject, inputs, images)
    task = OneModel(subject.data, subject.sha256, cases, subject.as_given, subject.weights)
    wanted = {"precision": subject.precision, **({"threads": threads} if threads else {})}
    with desk(
        task,
        subject.target,
        wanted,
        board_of_word(board) if isinstance(board, str) else board,
        measure=table,
        folder=folder,
        exact_sums=True if subject.artifact else None,
        judge=_no_parity if cases.random else judge,
        tell=tell,
    ) as bench:
        ready = bench if subject.artifact is None else _put_in(subject, subject.artifact, bench)
        assert ready.trials is not None  # there is a board
        return _told(ready.trials.measure(ready.variant, "selection"), ready, subject, cases)


@dataclass(frozen=True)
class _Subject:
    """What is measured: a float model as ONNX, and the artifact in ``folder`` where it is built already."""

    what: str
    data: bytes
    sha256: str
    target: Target
    precision: str
    notes: tuple[str, ...] = ()
    artifact: Artifact | None = None
    folder: Path = Path()
    quantized: bool = False
    as_given: str = ""
    weights: Path | None = None


def _subject(model: Path, target: str, precision: str, shapes: Mapping[str, Sequence[int]]) -> _Subject:
    if model.is_dir():
        artifact, reference = artifact_of(model)
        return _Subject(
            what=f"{model.name}/{artifact.entry}",
            data=reference.read_bytes(),
            sha256=artifact.reference_sha256,
            target=target_named(artifact.target, artifact.precision),
            precision=artifact.precision,
            artifact=artifact,
            folder=model,
            quantized=is_quantized(reference),
            weights=weights_file(reference) if has_weights_file(reference) else None,
            as_given="the artifact was built from a model of fixed precision" if artifact.precision == AS_GIVEN else "",
        )
    if not model.exists():
        remedy = "Name an .onnx file, or a folder made by `edgedeploy quantize` or `edgedeploy export`"
        raise DataError(f"model {model}", "there is no such file or folder", remedy)
    chosen = target_named(target, precision)
    if precision in CALIBRATED:
        found = "it needs calibration inputs"
        again = f"edgedeploy quantize {model} --target {target} --precision {precision} --calibration DIR --out OUT"
        raise SpecError(f"--precision {precision}", found, f"Make it first: `{again}`, then measure OUT")
    taken = take(model, shapes)
    if not taken.as_given:
        return _Subject(model.name, taken.data, taken.sha256, chosen, precision, taken.notes)
    if precision != "float32":
        remedy = "Leave it out: the file is measured as it is"
        raise SpecError(f"--precision {precision}", f"{model.name} has its own: {taken.as_given}", remedy)
    check_given(taken.data, taken.as_given, {target: chosen})
    notes = (*taken.notes, f"measured as it is given: {taken.as_given}")
    return _Subject(model.name, taken.data, taken.sha256, chosen, AS_GIVEN, notes, as_given=taken.as_given)


def _cases(subject: _Subject, inputs: str | Path | None, images: Mapping[str, Any] | None) -> Inputs:
    task = OneModel(subject.data, subject.sha256, Inputs({}, {}, ""), weights=subject.weights)
    if inputs is None:
        return random_cases(task.inputs_taken)
    found = cases_of(Path(inputs), task.inputs_taken, images, "--inputs")
    everything = {**found.calibration, **found.compared}
    return replace(found, calibration=everything, compared=everything, text=f"{len(everything)} cases of {inputs}")


def _put_in(subject: _Subject, artifact: Artifact, bench: Desk) -> Desk:
    """Put the built artifact into the workbench's store, where it is found in the place of a build. A reference that is
    quantized itself is no float baseline: the artifact is then its own."""
    kept = bench.bench.reference(bench.variant)
    if kept.sha256 != artifact.reference_sha256 or sha256_file(kept.path) != artifact.reference_sha256:
        raise DataError(f"artifact {subject.folder}", "its reference has changed", "Export it again")
    with new_folder(bench.store.artifact_folder(bench.variant.artifact_name)) as part:
        for file in artifact.files:
            shutil.copyfile(subject.folder / file.name, part / file.name)
        write_json(part / MANIFEST, artifact.as_json())
    if not subject.quantized or bench.trials is None:
        return bench
    return replace(bench, baseline=bench.variant, trials=replace(bench.trials, reference_baseline=bench.variant))


def _no_parity(*outputs: object) -> Judged:
    return UNJUDGED


def _told(found: Measurement, bench: Desk, subject: _Subject, cases: Inputs) -> Measured:
    resampler, own = Resampler(0), bench.baseline == bench.variant
    notes = [*subject.notes, *cases.notes, *([NO_PARITY] if cases.random else [])]
    if own:
        notes.append("it ran interleaved with itself: there is no other float model to compare it with")
    names = set(found.metrics) - set(bench.bench.task.metrics) - ({"latency_ratio"} if own else set())
    return Measured(
        measurement=found,
        what=subject.what,
        estimates={name: resampler.estimate(found, name) for name in sorted(names)},
        baseline=None if own else _baseline(found, resampler),
        verdict=None if own or found.baseline is None else latency_verdict(found.candidate, found.baseline),
        inputs=cases.text,
        notes=tuple(notes),
    )


def _baseline(found: Measurement, resampler: Resampler) -> Estimate | None:
    """The median of the blocks of the float model that ran between those of the candidate."""
    if found.baseline is None:
        return None
    metrics, _ = board_metrics(found.baseline, None, found.artifact, clock=found.board.clock)
    beside = replace(found, candidate=found.baseline, metrics=metrics)
    return resampler.estimate(beside, MEDIAN) if MEDIAN in metrics else None
