"""Conversion to LiteRT in a child process: ``python -m edgedeploy.targets.litert.tool JOB.json RESULT.json``.

The toolchain (torch, jax, the MLIR converter) prints to the terminal, keeps gigabytes once it is loaded, and crashes on
some graphs. In a child process none of that affects a study. Calibration cases come on standard input, one at a time: a
byte 1 and the inputs' elements in the order of the specs; a byte 0 ends them.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from edgedeploy import errors
from edgedeploy.errors import BuildError, EdgeDeployError, ParityError, Unsupported
from edgedeploy.files import write_atomic, write_json
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import CALIBRATED_RANGES, TensorSpec, random_feed
from edgedeploy.records.precision import CALIBRATED, PrecisionPlan
from edgedeploy.reference.calling import flat_tensors
from edgedeploy.reference.export import describe, run_reference
from edgedeploy.reference.parity import check_parity
from edgedeploy.reference.program import make_contiguous
from edgedeploy.reference.translate import first_line, translated
from edgedeploy.runtime.files import sha256_file
from edgedeploy.runtime.sessions.litert.session import LAYERS, LiteRtSession, open_model
from edgedeploy.targets.common import check_outputs
from edgedeploy.targets.litert.integers import finished
from edgedeploy.targets.litert.layers import LayerPlan, find_layers, input_skips, masked
from edgedeploy.targets.litert.ranges import Ranges, Run, choose, watch
from edgedeploy.targets.litert.signature import nameless, repaired

_MORE: Final = b"\x01"
_END: Final = b"\x00"


@dataclass(frozen=True)
class ToolJob:
    """A build for the child process. ``source`` is torch's exported program (.pt2) or an already converted float model
    (.tflite); ``keep`` is where to store the converted float model for further builds. ``quantized``: the program and
    the reference were trained to be int8."""

    source: Path
    reference: Path
    output: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str
    plan: PrecisionPlan
    integer_io: bool
    calibrator: str = ""
    keep: Path | None = None
    quantized: bool = False

    @property
    def calibrated(self) -> bool:
        """Whether activation ranges come from calibration cases."""
        return any(name in CALIBRATED for name in (self.precision, *self.plan.precisions))

    def as_json(self) -> dict[str, Any]:
        return {
            "source": str(self.source),
            "reference": str(self.reference),
            "output": str(self.output),
            "inputs": [spec.as_json() for spec in self.inputs],
            "outputs": [spec.as_json() for spec in self.outputs],
            "precision": self.precision,
            "plan": self.plan.as_json(),
            "integer_io": self.integer_io,
            "calibrator": self.calibrator,
            "keep": None if self.keep is None else str(self.keep),
            "quantized": self.quantized,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ToolJob:
        return cls(
            source=Path(data["source"]),
            reference=Path(data["reference"]),
            output=Path(data["output"]),
            inputs=tuple(TensorSpec.from_json(item) for item in data["inputs"]),
            outputs=tuple(TensorSpec.from_json(item) for item in data["outputs"]),
            precision=str(data["precision"]),
            plan=PrecisionPlan.from_json(data["plan"]),
            integer_io=bool(data["integer_io"]),
            calibrator=str(data["calibrator"]),
            keep=None if data["keep"] is None else Path(data["keep"]),
            quantized=bool(data["quantized"]),
        )


def write_cases(stream: IO[bytes], feeds: Iterator[dict[str, Array]], inputs: tuple[TensorSpec, ...]) -> None:
    """Send calibration cases to the child; runs in the parent."""
    for feed in feeds:
        stream.write(_MORE)
        for spec in inputs:
            stream.write(np.ascontiguousarray(feed[spec.name]).tobytes())
    stream.write(_END)
    stream.flush()


def read_cases(stream: IO[bytes], inputs: tuple[TensorSpec, ...]) -> Iterator[dict[str, Array]]:
    while stream.read(1) == _MORE:
        yield {spec.name: _read_array(stream, spec) for spec in inputs}


def _read_array(stream: IO[bytes], spec: TensorSpec) -> Array:
    size_bytes = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
    return np.frombuffer(stream.read(size_bytes), spec.dtype).reshape(spec.shape)


def error_of(report: Mapping[str, Any]) -> Exception:
    """The error that :func:`main` wrote as a report."""
    kind = str(report["error"])
    if kind == "OSError":
        return OSError(int(report["errno"]), str(report["found"]))
    if kind == "MemoryError":
        return MemoryError(str(report["found"]))
    made: type[EdgeDeployError] = getattr(errors, kind)
    return made(str(report["asked"]), str(report["found"]), str(report["remedy"]))


def main(job_path: str, result_path: str) -> int:
    job = ToolJob.from_json(json.loads(Path(job_path).read_text(encoding="utf-8")))
    try:
        built = make_trained if job.quantized else make
        report: dict[str, Any] = {"settings": dict(built(job, read_cases(sys.stdin.buffer, job.inputs)))}
    except EdgeDeployError as exc:
        report = exc.as_json()
    except OSError as exc:
        report = {"error": "OSError", "errno": exc.errno or 0, "found": first_line(exc)}
    except MemoryError as exc:
        report = {"error": "MemoryError", "found": first_line(exc)}
    Path(result_path).write_text(json.dumps(report), encoding="utf-8")
    return 1 if "error" in report else 0


def make(job: ToolJob, cases: Iterator[dict[str, Array]]) -> Mapping[str, str]:
    """Convert, compare the float model with the reference, quantize it, run it once. Returns the session's settings."""
    floating = job.output.with_name("converted.tflite")
    feed = next(cases, None) or random_feed(job.inputs, 0)
    if job.source.suffix == ".tflite":
        shutil.copy(job.source, floating)
    else:
        convert_program(job, floating, feed)
    layers = find_layers(job.plan, job.precision, job.reference, floating)
    settings = {**_hold_against_reference(job, floating, feed, "float32"), LAYERS: json.dumps(layers.names)}
    if job.keep is not None:
        with suppress(OSError):  # the next build converts again
            write_atomic(job.keep, floating.read_bytes())
            write_json(job.keep.with_suffix(".json"), {"sha256": sha256_file(floating)})
    if job.precision == "float32" and not job.plan.rules:
        floating.replace(job.output)
    else:
        if job.calibrated:
            cases = map(_session(floating, {}).encode, chain([feed], cases))
        with translated(f"{job.precision} by ai-edge-quantizer", "Search another precision for this architecture"):
            narrow(job, layers, floating, cases)
        floating.unlink()
    ran = _prove(job, feed, settings)
    if job.plan.rules:
        layers.check(ran)
    return settings


def convert_program(job: ToolJob, path: Path, feed: Mapping[str, Array]) -> None:
    """Convert torch's program, traced on ``feed``, to a float model whose inputs and outputs have the reference's names."""
    module = _program(job)
    with translated("conversion by litert-torch", "Replace the operator it names", Unsupported):
        import litert_torch

        named, arguments = _named(module, job), dict(zip(_names(job), _tensors(job, feed), strict=True))
        litert_torch.convert(named, sample_kwargs=arguments).export(str(path))


def make_trained(job: ToolJob, cases: Iterator[dict[str, Array]]) -> Mapping[str, str]:
    """Convert a program that was trained to be int8, with its scales; compare the file with the reference, run it once.
    Returns the session's settings."""
    from edgedeploy.targets.litert.trained import with_scales

    feed = next(cases)  # whoever builds int8 has sent one
    module = _program(job)
    scales = with_scales(module, (_tensors(job, case) for case in chain([feed], cases)))
    with translated("conversion of trained int8 by litert-torch", "Search training = ['ptq'] for LiteRT", Unsupported):
        import litert_torch
        from litert_torch.quantize import pt2e_quantizer, quant_config

        recipe = pt2e_quantizer.get_symmetric_quantization_config(
            is_per_channel=True
        )  # read for its being static alone
        static = quant_config.QuantConfig(pt2e_quantizer=pt2e_quantizer.PT2EQuantizer().set_global(recipe))
        named, arguments = _named(module, job), dict(zip(_names(job), _tensors(job, feed), strict=True))
        litert_torch.convert(named, sample_kwargs=arguments, quant_config=static).export(str(job.output))
        job.output.write_bytes(nameless(finished(job.output.read_bytes(), scales, integer_io=job.integer_io)))
    layers = find_layers(job.plan, job.precision, job.reference, job.output)
    layout = _hold_against_reference(job, job.output, feed, job.precision)
    settings = {**layout, LAYERS: json.dumps(layers.names), CALIBRATED_RANGES: str(len(scales.calibrated))}
    _prove(job, feed, settings)
    return settings


def _program(job: ToolJob) -> Any:
    """The program of the job as a module."""
    import torch

    with translated(f"{job.source.name} as a torch program", "Remove the model's folder from the store"):
        program = torch.export.load(job.source)
        make_contiguous(program)  # older versions saved programs without doing so
        return program.module()


def _names(job: ToolJob) -> list[str]:
    return [spec.name for spec in job.inputs]


def _tensors(job: ToolJob, feed: Mapping[str, Array]) -> list[Any]:
    """The inputs of one case in the order of the specs."""
    import torch

    return [torch.from_numpy(np.array(feed[name])) for name in _names(job)]


def _named(program: Any, job: ToolJob) -> Any:
    """A module of named inputs and outputs around ``program``: the converter takes a signature's names from there."""
    import torch

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = program
            self.training = False

        def forward(self, **feeds: Any) -> dict[str, Any]:
            values = flat_tensors(self.program(*(feeds[spec.name] for spec in job.inputs)))
            return dict(zip((spec.name for spec in job.outputs), values, strict=True))

    return Named()


def narrow(job: ToolJob, layers: LayerPlan, floating: Path, cases: Iterator[dict[str, Array]]) -> None:
    """Write the model in the asked precision; see :mod:`edgedeploy.targets.litert.target` for the recipes."""
    from ai_edge_quantizer import quantizer, recipe_manager

    recipes = recipe_manager.RecipeManager()  # of the recipes that match an operator, the last one added wins
    RECIPES[job.precision](recipes, ".*")
    if job.precision == "int8":
        for scope in (*input_skips(floating), *masked(floating)):
            _float32(recipes, f"^{re.escape(scope)}$")
    for scope, precision in layers.of_scope().items():
        RECIPES[precision](recipes, f"^{re.escape(scope)}$")
    if job.calibrated and not job.integer_io:
        for edge in ("INPUT", "OUTPUT"):
            recipes.add_quantization_config(".*", edge, algorithm_key="no_quantize")
    model = floating.read_bytes()

    def write(ranges: Ranges | None) -> None:
        made = quantizer.Quantizer(model, recipes.get_quantization_recipe())
        quantized = made.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
        job.output.write_bytes(nameless(repaired(bytes(quantized.quantized_model), model)))

    def written(ranges: Ranges) -> Run:
        write(ranges)
        return _session(job.output, {}).run

    if not job.calibrated:
        write(None)
        return
    seen = watch(model, recipes, cases, job.calibrator)
    write(seen.whole[choose(seen, _session(floating, {}).run, written)])


def _float32(recipes: Any, scope: str) -> None:
    recipes.add_quantization_config(scope, "*", algorithm_key="no_quantize")


def _float16(recipes: Any, scope: str) -> None:
    recipes.add_weight_only_config(scope, "*", num_bits=16, algorithm_key="float_casting")


def _int8_dynamic(recipes: Any, scope: str) -> None:
    recipes.add_dynamic_config(scope, "*", num_bits=8)


def _int8(recipes: Any, scope: str) -> None:
    """int8 recipes for ``scope``. ``BATCH_MATMUL`` gets one scale per tensor: its kernels silently use the first of
    many."""
    from ai_edge_quantizer.qtyping import QuantGranularity

    recipes.add_static_config(scope, "*", activation_num_bits=8, weight_num_bits=8)
    recipes.add_static_config(
        scope,
        "BATCH_MATMUL",
        activation_num_bits=8,
        weight_num_bits=8,
        weight_granularity=QuantGranularity.TENSORWISE,
    )


RECIPES: Final[Mapping[str, Callable[[Any, str], None]]] = {
    "float32": _float32,
    "float16": _float16,
    "int8-dynamic": _int8_dynamic,
    "int8": _int8,
}


def _hold_against_reference(job: ToolJob, made: Path, feed: dict[str, Array], precision: str) -> Mapping[str, str]:
    """Compare the converted model, which is in ``precision``, with the reference: the converter may have changed the
    model or the order of an output's dimensions. Returns the session settings that restore the reference's order of
    each output's dimensions."""
    what = "the converted model"
    with translated(f"{what} in LiteRT", "Try another target", Unsupported):
        found = _session(made, {}).run(feed)
    reference = replace(describe(job.reference, own=True), quantized=job.quantized)  # the target has already checked it
    expected = run_reference(reference, feed)
    settings: dict[str, str] = {}
    for spec in job.outputs:
        if spec.name in found and (order := _order(found[spec.name], expected[spec.name])) is not None:
            settings[f"layout:{spec.name}"] = ",".join(map(str, order))
            found[spec.name] = np.transpose(found[spec.name], order)
    check_outputs(what, found, job.outputs)
    try:
        check_parity(expected, {spec.name: found[spec.name] for spec in job.outputs}, precision)
    except ParityError as exc:
        raise BuildError(f"conversion of {job.source.name}", exc.found, "The converter changed the model") from exc
    return settings


def _order(found: Array, expected: Array) -> tuple[int, ...] | None:
    """The axes that transpose channels-last ``found`` to ``expected``; None if no transpose is needed. The values
    decide, because shapes can be ambiguous: all dimensions may be equal."""
    last = found.ndim - 1
    if last < 2:
        return None
    order = (0, last, *range(1, last))
    turned = np.transpose(found, order)
    if turned.shape != expected.shape:
        return None
    if (
        found.shape == expected.shape
        and np.abs(np.subtract(found, expected)).sum() <= np.abs(np.subtract(turned, expected)).sum()
    ):
        return None
    return order


def _prove(job: ToolJob, feed: dict[str, Array], settings: Mapping[str, str]) -> list[str]:
    """Open the file as a board does, and run it once. Returns the precision of each compute layer."""
    what = f"the {job.precision} model"
    with translated(f"{what} in LiteRT", "Try another precision", Unsupported):
        session = _session(job.output, settings)
        found = session.run(feed)
    check_outputs(what, found, job.outputs)
    ran = session.layer_precisions()
    if job.precision.startswith("int8") and job.precision not in ran:
        text = ", ".join(sorted(set(ran))) or "none"
        raise Unsupported(f"{job.precision} layers", f"the model has {text}", "Search float32 instead")
    return ran


def _session(path: Path, settings: Mapping[str, str]) -> LiteRtSession:
    return open_model(path, settings, threads=1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
