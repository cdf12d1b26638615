"""What all targets share: finding the toolchain, staging files, calibration inputs, checks of requests and outputs."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from edgedeploy.errors import BuildError, DataError, TargetUnavailable, Unsupported
from edgedeploy.interfaces.ability import sums_int8_exactly
from edgedeploy.interfaces.target import (
    BuildRequest,
    Calibrating,
    HasQuantizers,
    HasSevenBitWeights,
    PerLayer,
    Readiness,
    TakesAsGiven,
    TakesBatches,
    TakesQuantized,
    Target,
)
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact, TensorSpec, random_feed
from edgedeploy.records.precision import AS_GIVEN, CALIBRATED
from edgedeploy.reference.parity import TOLERANCE
from edgedeploy.runtime.files import sha256_file
from edgedeploy.runtime.sensors.probe import isa_here

CALIBRATION_LIMIT: Final = 300
"""At most this many calibration cases are used. Activation ranges settle within tens of images; more only cost time."""


def look_for(packages: Sequence[str], extra: str = "") -> Readiness:
    """Readiness from the installed distributions alone: nothing is imported. The remedy installs ``extra`` of edgedeploy;
    without one, what is missing."""
    versions: dict[str, str] = {}
    missing: list[str] = []
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        remedy = f"pip install 'edgedeploy[{extra}]'" if extra else f"pip install {' '.join(missing)}"
        return Readiness(False, versions, f"not installed: {', '.join(missing)}", remedy)
    return Readiness(True, versions, ", ".join(f"{name} {version}" for name, version in versions.items()))


def require(target: Target, precision: str) -> Mapping[str, str]:
    """Versions of the target's toolchain. Raises ``TargetUnavailable`` or, for a precision it lacks, ``Unsupported``."""
    readiness = target.probe()
    if not readiness.ready:
        raise TargetUnavailable(f"target {target.name!r}", readiness.found, readiness.remedy)
    given = (AS_GIVEN,) if isinstance(target, TakesAsGiven) else ()
    _require_offered(target, "precision", precision, (*target.precisions, *given))
    return readiness.versions


def require_abilities(target: Target, request: BuildRequest) -> None:
    """Raises ``Unsupported`` for layer precisions, a quantizer, a calibration, 7-bit weights or a quantized reference that
    the target lacks."""
    if request.quantized and not (isinstance(target, TakesQuantized) and target.takes_quantized):
        found = "it quantizes by itself only"
        raise Unsupported(f"a quantized reference for target {target.name!r}", found, "Search training = ['ptq'] there")
    tools = target.quantizers if isinstance(target, HasQuantizers) else {}
    _require_offered(target, "quantizer", request.quantizer, ("", *tools))
    own = target.calibrations if isinstance(target, Calibrating) else ()
    _require_offered(
        target, "calibration", request.calibrator, ("", *(tools[request.quantizer] if request.quantizer else own))
    )
    if request.weight_bits != 8:
        offered = target.seven_bit_precisions if isinstance(target, HasSevenBitWeights) else ()
        if request.weight_bits != 7 or not any(
            name in offered for name in (request.precision, *request.plan.precisions)
        ):
            asked = f"{request.weight_bits}-bit weights in {request.precision} by target {target.name!r}"
            found = f"it has 7-bit weights in {', '.join(offered)}" if offered else "it has 8-bit weights only"
            raise Unsupported(asked, found, "Build with 8 bits")
    if request.max_batch > 1 and not (isinstance(target, TakesBatches) and target.takes_batches):
        asked = f"batches of {request.max_batch} by target {target.name!r}"
        raise Unsupported(asked, "its artifacts answer one case at once", "Leave max_batch out, or take another target")
    for precision in request.plan.precisions:
        offered = target.layer_precisions if isinstance(target, PerLayer) else ()
        _require_offered(target, "precision of single layers", precision, offered)


def _require_offered(target: Target, what: str, wanted: str, offered: Sequence[str]) -> None:
    if wanted not in offered:
        found = f"it has {', '.join(filter(None, offered)) or 'none'}"
        raise Unsupported(f"{what} {wanted!r} of target {target.name!r}", found, "Choose one of these")


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder inside ``folder``. Its files move to ``folder`` when the block ends, and are removed when it
    raises."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [path.name for path in folder.iterdir()]
    if found:
        raise BuildError(f"an empty folder {folder}", f"it holds {found[0]!r}", "Build into a new folder")
    with TemporaryDirectory(prefix=".part-", dir=folder) as scratch:
        yield Path(scratch)
        for path in sorted(Path(scratch).iterdir()):
            path.replace(folder / path.name)


def staged_artifact(
    target: Target,
    request: BuildRequest,
    folder: Path,
    entry: str,
    write: Callable[[Path, dict[str, str]], Mapping[str, str]],
) -> Artifact:
    """The common part of every ``Target.build``: checks of the request, a staging folder, the artifact's record. Targets of
    other packages have :func:`edgedeploy.targets.building.build_artifact`, which also proves what was written.

    ``write`` is the target's own part. It gets an empty folder and the versions of the toolchain, writes the files and
    returns the artifact's session settings; it may correct the versions. Raises what :func:`require`,
    :func:`require_abilities`, :func:`staged` and ``write`` raise.
    """
    versions = dict(require(target, request.precision))
    require_abilities(target, request)
    with staged(folder) as scratch:
        settings = write(scratch, versions)
    return Artifact.of_folder(
        folder,
        target=target.name,
        precision=request.precision,
        entry=entry,
        inputs=request.inputs,
        outputs=request.outputs,
        settings=settings,
        reference_sha256=sha256_file(request.reference),
        built_with=versions,
    )


def saturates_here() -> bool:
    """Whether this host's int8 kernels saturate: their results then say nothing about other machines."""
    return not sums_int8_exactly(platform.machine(), isa_here())


def calibration_feeds(request: BuildRequest) -> Iterator[dict[str, Array]]:
    """Calibration cases one at a time. Raises ``DataError`` for a case that does not match the input specs."""
    for index, feed in enumerate(islice(request.calibration(), CALIBRATION_LIMIT)):
        for spec in request.inputs:
            _check_feed(index, spec, feed)
        yield {spec.name: feed[spec.name] for spec in request.inputs}


def calibrates(request: BuildRequest) -> bool:
    """Whether ranges of the artifact come from calibration cases. A quantized reference has its own."""
    return not request.quantized and any(name in CALIBRATED for name in (request.precision, *request.plan.precisions))


def first_feed(request: BuildRequest) -> dict[str, Array]:
    """One calibration case. Raises ``DataError`` when there is none."""
    feed = next(calibration_feeds(request), None)
    if feed is None:
        raise no_cases("int8")
    return feed


def probe_feed(request: BuildRequest) -> dict[str, Array]:
    """What a fresh artifact is run once on: a calibration case, or where there is none values of the inputs' types."""
    return next(calibration_feeds(request), None) or random_feed(request.inputs, 0)


def no_cases(precision: str) -> DataError:
    return DataError(
        f"calibration cases for {precision}", "the task has none", "Give the calibration split at least one case"
    )


def check_batch(
    run: Callable[[dict[str, Array]], Mapping[str, Array]], feed: Mapping[str, Array], request: BuildRequest
) -> None:
    """Each case of a full batch gets the answer that it gets alone, within the tolerance of the precision. Cases are
    those of the calibration in turn, or where there is none ``feed``, and shares of them. Raises ``Unsupported``,
    ``DataError``, and whatever ``run`` raises."""
    count, asked = request.max_batch, f"batches of {request.max_batch} of {request.reference.name}"
    given: list[Mapping[str, Array]] = [*islice(calibration_feeds(request), count)]
    given = given or [feed]  # equal ones would hide that they are mixed
    rows = [given[row % len(given)] for row in range(count)]
    cases = [{name: _share(value, row, count) for name, value in values.items()} for row, values in enumerate(rows)]
    together = run({name: np.concatenate([case[name] for case in cases]) for name in feed})
    limit = max(TOLERANCE[name] for name in (request.precision, *request.plan.precisions))
    for row, case in enumerate(cases):
        for name, alone in run(case).items():
            if alone.shape[:1] != (1,) or together[name].shape != (count, *alone.shape[1:]):
                found = f"output {name!r} is {together[name].shape}, {alone.shape} for one case"
                raise Unsupported(asked, found, "Leave max_batch out")
            wanted, found_row = alone[0].astype(np.float64), together[name][row].astype(np.float64)
            if not np.linalg.norm(found_row - wanted) <= limit * np.linalg.norm(wanted):
                found = f"output {name!r} of case {row} is not what it is alone"
                raise Unsupported(asked, found, "Leave max_batch out")


def _share(value: Array, row: int, count: int) -> Array:
    """Another case of the same kind: floats are scaled, so that their order and their zeros stay."""
    return (value * np.asarray(1 - row / (2 * count), value.dtype)) if value.dtype.kind == "f" else value


def check_outputs(what: str, outputs: Mapping[str, Array], specs: Sequence[TensorSpec]) -> None:
    """Compare a fresh artifact's outputs with the reference's names, shapes and finiteness. Raises ``Unsupported``."""
    for spec in specs:
        if spec.name not in outputs:
            raise Unsupported(f"output {spec.name!r} of {what}", f"it has {', '.join(outputs)}", "Try another target")
        value = outputs[spec.name]
        asked = f"output {spec.name!r} of {what}"
        if tuple(value.shape) != spec.shape:
            raise Unsupported(f"{asked} of shape {spec.shape}", f"it gives {tuple(value.shape)}", "Try another target")
        if not np.isfinite(value).all():
            raise Unsupported(f"finite values in {asked}", "it holds NaN or Inf", "Try a wider precision")


def _check_feed(index: int, spec: TensorSpec, feed: Mapping[str, Array]) -> None:
    what = f"calibration case {index}, input {spec.name!r}"
    if spec.name not in feed:
        raise DataError(what, f"the task gave {', '.join(feed) or 'nothing'}", "inputs() has to fit input_specs()")
    value = feed[spec.name]
    if tuple(value.shape) != spec.shape or value.dtype != np.dtype(spec.dtype):
        found = f"{value.dtype} {tuple(value.shape)}"
        raise DataError(f"{what} as {spec.dtype} {spec.shape}", found, "inputs() has to fit input_specs()")
    if not np.isfinite(value).all():
        raise DataError(what, "it holds NaN or Inf", "Remove the case, or correct its values")
