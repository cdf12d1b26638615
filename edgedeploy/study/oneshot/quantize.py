"""``edgedeploy quantize``: one artifact from one float model, held against it output by output, without a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgedeploy.compress.weights_file import WeightsFile
from edgedeploy.errors import SpecError
from edgedeploy.interfaces.ability import sums_int8_exactly
from edgedeploy.interfaces.target import Calibrating, HasSevenBitWeights, Target
from edgedeploy.interfaces.task import Split, Task
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.precision import CALIBRATED
from edgedeploy.records.units import human
from edgedeploy.records.weightbits import WEIGHT_BITS
from edgedeploy.spec.boards import BoardTable, board_of_word
from edgedeploy.study.modeller import GOLDEN_CASES
from edgedeploy.study.oneshot.desk import Desk, Tell, desk, require_absent, target_named
from edgedeploy.study.oneshot.folder import write_folder
from edgedeploy.study.oneshot.model import OneModel, cases_of, random_cases, take
from edgedeploy.study.oneshot.trained import SPLIT, Accuracy, GoldenOutputs, accuracy_of, load_trained
from edgedeploy.targets.registry import quantizers_of

NOT_ACCURACY: Final = (
    "Accuracy was not measured: without labels, this says how near the outputs are to the float model's, and no more."
)


@dataclass(frozen=True)
class OutputDistance:
    """How far one output is from the float model's: relative L2 distance, its mean and its worst case, the largest
    difference, and the signal to noise ratio of the worst case in dB. None where the float model's output is zero."""

    output: str
    mean_rel_l2: float | None
    worst_rel_l2: float | None
    worst_case: str
    max_abs: float
    worst_sqnr_db: float | None


@dataclass(frozen=True)
class Quantized:
    """What :func:`quantize` made. ``file`` is what a runtime opens. ``distances`` is empty, and ``compared_on`` says so,
    where nothing was run. ``weight_bits`` says for which board how many bits the int8 weights have, and why."""

    folder: Path
    file: Path
    artifact: Artifact
    float_bytes: int
    distances: tuple[OutputDistance, ...]
    compared_on: str
    board: str | None
    weight_bits: str
    notes: tuple[str, ...]
    accuracy: tuple[Accuracy, ...] = ()

    @property
    def accuracy_text(self) -> tuple[str, ...]:
        """Sentences: what the precision costs in the task's own metrics, or that nobody knows."""
        return tuple(map(_accuracy_text, self.accuracy)) or (NOT_ACCURACY,)

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "file": str(self.file),
            "target": self.artifact.target,
            "precision": self.artifact.precision,
            "artifact": self.artifact.digest,
            "float_bytes": self.float_bytes,
            "size_bytes": self.artifact.size_bytes,
            "outputs": [asdict(item) for item in self.distances],
            "compared_on": self.compared_on,
            "board": self.board,
            "weight_bits": self.weight_bits,
            "accuracy": [asdict(item) for item in self.accuracy] or NOT_ACCURACY,
            "notes": list(self.notes),
        }


def quantize(
    model: str | Path | None = None,
    *,
    target: str,
    precision: str,
    out: str | Path,
    calibration: str | Path | None = None,
    images: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    calibrator: str = "",
    quantizer: str = "",
    weight_bits: int = 0,
    board: BoardTable | str | None = "local",
    task: str | Task | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_key: str = "",
    tell: Tell = lambda line: None,
) -> Quantized:
    """Build ``model``, an ONNX file, or the model of ``task`` in ``precision`` for ``target`` and write it to the new
    folder ``out``.

    - ``calibration``: images, ``.npy`` or ``.npz`` files; needed by precisions that choose ranges. Some of the cases are
      held out to compare on. ``images``: ``colour``, ``mean`` and ``std`` of image files, as in a study file.
    - ``shapes``: sizes of input dimensions that the model leaves open.
    - ``calibrator``: how ranges are chosen, by the names of ``space.calibration``; ``quantizer``: which tool makes int8, by
      those of ``space.quantizer``.
    - ``weight_bits``: 7 or 8 for int8; 0 lets the board choose where its int8 sums saturate.
    - ``task``: a task with trained weights instead of an ONNX file, ``file.py:factory`` or the object. Its own calibration
      cases are taken, and its metrics on its selection cases say what the precision costs. ``checkpoint`` is the file of
      the weights, with ``checkpoint_key`` where they lie under one, unless ``build`` returns trained ones.
    - ``board`` runs the artifact: a table, or a word as ``--board`` takes it. With None it is only built.
    - ``tell`` hears what happens, in lines for people.

    Raises ``SpecError``, ``DataError``, ``TargetUnavailable``, ``BuildError``, ``BoardError``, ``ParityError``.
    """
    out = Path(out)
    require_absent(out)
    chosen = target_named(target, precision)
    wanted = _settings(chosen, precision, calibrator, weight_bits, quantizer)
    if task is not None:
        subject = _of_task(task, model, calibration, checkpoint, checkpoint_key)
    else:
        subject = _of_file(model, precision, calibration, images, shapes or {}, checkpoint)
    place = board_of_word(board) if isinstance(board, str) else board
    golden = GoldenOutputs()
    with desk(
        subject.task, chosen, wanted, place, judge=golden.judge, weights_file=subject.weights_file, tell=tell
    ) as bench:
        measured = _build(bench, subject)
        artifact, built = bench.bench.artifact(bench.variant)
        reference = bench.bench.reference(bench.variant)
        own = not isinstance(subject.task, OneModel)
        result = Quantized(
            folder=out,
            file=out / artifact.entry,
            artifact=artifact,
            float_bytes=reference.path.stat().st_size,
            distances=_distances(subject.task, measured, golden),
            compared_on=_compared_on(measured, subject.compared_on),
            board=bench.info.name if bench.info else None,
            weight_bits=_bits_text(bench, chosen),
            notes=(*subject.notes, *_beyond(golden, precision)),
            accuracy=accuracy_of(subject.task, reference, measured) if own and measured is not None else (),
        )
        write_folder(out, artifact, built, reference.path, facts=_facts(result, subject), threads=bench.variant.threads)
    return result


@dataclass(frozen=True)
class _Subject:
    """What is built: the task, what it is called, and what its outputs are compared on."""

    task: Task
    name: str
    compared_on: str
    split: Split
    weights_file: WeightsFile | None = None
    notes: tuple[str, ...] = ()


def _of_file(
    named: str | Path | None,
    precision: str,
    calibration: str | Path | None,
    images: Mapping[str, Any] | None,
    shapes: Mapping[str, Sequence[int]],
    checkpoint: str | Path | None,
) -> _Subject:
    if named is None:
        raise SpecError("the model", "none was named", "Name an .onnx file, or --task file.py:factory")
    if checkpoint is not None:
        raise SpecError("--checkpoint", "an ONNX file has its weights", "Leave it out, or give --task file.py:factory")
    model = Path(named)
    taken = take(model, shapes)
    if taken.as_given:
        remedy = "Name the float model that it was made from. `edgedeploy measure` and a study take the file as it is"
        raise SpecError(f"--precision {precision} of {model.name}", taken.as_given, remedy)
    if calibration is not None:
        cases = cases_of(Path(calibration), taken.inputs, images, "--calibration")
    elif precision in CALIBRATED:
        found = "ranges of activations come from example inputs, and none were given"
        raise SpecError(
            f"--precision {precision}", found, "Add --calibration with a folder of images, .npy or .npz files"
        )
    else:
        cases = random_cases(taken.inputs)
    task = OneModel(taken.data, taken.sha256, cases)
    return _Subject(task, model.name, cases.text, "confirmation", notes=(*taken.notes, *cases.notes))


def _of_task(
    task: str | Task,
    model: str | Path | None,
    calibration: str | Path | None,
    checkpoint: str | Path | None,
    key: str,
) -> _Subject:
    """Raises ``SpecError`` where a model or calibration cases were given, which the task has itself."""
    if model is not None or calibration is not None:
        given, remedy = ("an ONNX file", "Give one of them") if model else ("--calibration", "The task has its own")
        raise SpecError("--task", f"{given} was given too", remedy)
    weights = None if checkpoint is None else Path(checkpoint)
    found, weights_file = load_trained(task, weights, key)
    count = min(GOLDEN_CASES, len(found.cases("calibration")))
    name = f"task {found.name}" + (f" with {weights.name}" if weights else "")
    return _Subject(found, name, f"{count} calibration cases, which its ranges have seen", SPLIT, weights_file)


def _settings(target: Target, precision: str, calibrator: str, weight_bits: int, quantizer: str = "") -> dict[str, Any]:
    """The fields of the variant. Raises ``SpecError`` for what the target has not."""
    tools = quantizers_of(target)
    if quantizer and quantizer not in tools:
        found = f"target {target.name} does not quantize by it"
        raise SpecError(f"--quantizer {quantizer}", found, f"It has: {', '.join(tools) or 'none'}")
    tool = "" if quantizer in tuple(tools)[:1] or precision not in CALIBRATED else quantizer
    own = target.calibrations if isinstance(target, Calibrating) else ()
    ways = tools[tool] if tool else own
    if calibrator and calibrator not in ways:
        found = f"target {target.name} does not calibrate by it" + (f" with {tool}" if tool else "")
        raise SpecError(f"--calibrator {calibrator}", found, f"It has: {', '.join(ways) or 'none'}")
    if weight_bits and weight_bits not in WEIGHT_BITS:
        raise SpecError(f"--weight-bits {weight_bits}", "int8 weights have 7 or 8 bits", "Give one of them, or neither")
    if weight_bits and not _has_seven_bits(target, precision):
        found = f"target {target.name} has no such choice for {precision}"
        raise SpecError(f"--weight-bits {weight_bits}", found, "Leave it out")
    way = "" if calibrator in ways[:1] or precision not in CALIBRATED else calibrator
    return {"precision": precision, "calibration": way, "weight_bits": weight_bits, "quantizer": tool}


def _has_seven_bits(target: Target, precision: str) -> bool:
    return isinstance(target, HasSevenBitWeights) and precision in target.seven_bit_precisions


def _build(at: Desk, subject: _Subject) -> Measurement | None:
    """Build the variant, and let the board choose the bits of its weights and run it; None without a board."""
    if at.trials is None:
        at.bench.artifact(at.variant)
        return None
    rivals = at.bench.rivals(at.variant)
    if rivals is not None:
        at.trials.choose_weight_bits(at.variant, rivals)
    return replace(at.trials, untimed=(subject.split,)).measure(at.variant, subject.split)


def _distances(task: Task, measured: Measurement | None, golden: GoldenOutputs) -> tuple[OutputDistance, ...]:
    if measured is None:
        return ()
    if not isinstance(task, OneModel):
        return tuple(_distance(name, golden.by_case(name)) for name in golden.names)
    return tuple(
        _distance(
            name,
            {case: (item[f"rel_l2_{slug}"], item[f"max_abs_{slug}"] or 0.0) for case, item in measured.cases.items()},
        )
        for name, slug in task.slugs.items()
    )


def _beyond(golden: GoldenOutputs, precision: str) -> tuple[str, ...]:
    """A warning where the artifact is further from the float model than its precision explains."""
    if not golden.judged.missed:
        return ()
    return (
        f"further from the float model than {precision} explains: {golden.judged.text}; `edgedeploy debug` shows where",
    )


def _distance(name: str, by_case: Mapping[str, tuple[float | None, float]]) -> OutputDistance:
    known = {case: relative for case, (relative, _) in by_case.items() if relative is not None}
    largest = max(difference for _, difference in by_case.values())
    if not known:
        return OutputDistance(name, None, None, "", largest, None)
    case = max(known, key=lambda item: known[item])
    sqnr_db = -20.0 * math.log10(known[case]) if known[case] > 0 else None
    return OutputDistance(name, sum(known.values()) / len(known), known[case], case, largest, sqnr_db)


def _compared_on(measured: Measurement | None, cases: str) -> str:
    if measured is None:
        return "nothing: no board was asked for, so the artifact was built and not run"
    return f"{cases}, run on board {measured.board.name} ({measured.provenance}, {measured.board.cpu})"


def _bits_text(at: Desk, target: Target) -> str:
    """Which weights the artifact has for which board; empty where there is no such choice."""
    if not _has_seven_bits(target, at.variant.precision):
        return ""
    if at.variant.weight_bits:
        return f"{at.variant.weight_bits} bits, as asked for"
    if at.info is None:
        return "8 bits: no board was asked, so this is for processors whose int8 sums do not saturate (VNNI, AMX, Arm)"
    chosen = at.bench.weight_bits(at.variant)
    who = f"for board {at.info.name} ({at.info.cpu})"
    if chosen is not None:
        return f"{who}: {chosen.text}"
    exact = sums_int8_exactly(at.info.arch, at.info.isa)
    return f"{who}: 8 bits" + (", its int8 sums do not saturate" if exact else "")


def _facts(result: Quantized, subject: _Subject) -> dict[str, str]:
    facts = {
        "made from": f"{subject.name} ({human(result.float_bytes, 'bytes')} as float ONNX)",
        "compared on": result.compared_on,
        **{f"distance of `{item.output}`": distance_text(item) for item in result.distances},
        "int8 weights": result.weight_bits,
        "accuracy": " ".join(result.accuracy_text),
        "notes": "; ".join(result.notes),
    }
    return {name: text for name, text in facts.items() if text}


def distance_text(item: OutputDistance) -> str:
    """One line for people."""
    if item.mean_rel_l2 is None or item.worst_rel_l2 is None:
        return f"the float model's output is zero all over; largest difference {item.max_abs:.3g}"
    noise = "" if item.worst_sqnr_db is None else f", SQNR {item.worst_sqnr_db:.1f} dB"
    worst = f"worst case {item.worst_rel_l2:.3g} ({item.worst_case}{noise})"
    return f"relative L2 {item.mean_rel_l2:.3g} on average, {worst}; largest difference {item.max_abs:.3g}"


def _accuracy_text(item: Accuracy) -> str:
    def said(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.4g}"

    return (
        f"{item.metric} of the task on {item.cases} selection cases: {said(item.float_model)} of the float model, "
        f"{said(item.artifact)} of this file."
    )
