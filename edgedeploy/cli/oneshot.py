"""Commands for one model: quantize it, measure it on a board, take an artifact out of a study's folder."""

from __future__ import annotations

from shlex import quote
from typing import Annotated, Any

import typer
from rich.markup import escape

from edgedeploy.cli.app import EXIT_PARTIAL, AsJson, Folder, app, out, print_json, print_table
from edgedeploy.cli.building import (
    BuildFor,
    Calibration,
    Calibrator,
    Checkpoint,
    CheckpointKey,
    FloatModel,
    Inputs,
    ModelOrArtifact,
    Quantizer,
    Queries,
    Threads,
    TriedOn,
    WeightBits,
)
from edgedeploy.cli.loudness import say
from edgedeploy.cli.older import PickTookAValue
from edgedeploy.cli.options import (
    BoardPython,
    BoardWord,
    BuiltFor,
    BuiltIn,
    Colour,
    Mean,
    OfVariant,
    OutFolder,
    OwnTask,
    Page,
    Pick,
    Shapes,
    Std,
    StudyFile,
    ValueRange,
    board_named,
    images_table,
    one_target,
    pick_or_variant,
)


@app.command()
def quantize(
    target: BuildFor,
    out_folder: OutFolder,
    model: FloatModel = None,
    precision: BuiltIn = "int8",
    calibration: Calibration = None,
    colour: Colour = None,
    mean: Mean = None,
    std: Std = None,
    value_range: ValueRange = None,
    page: Page = None,
    shape: Shapes = None,
    calibrator: Calibrator = "",
    quantizer: Quantizer = "",
    weight_bits: WeightBits = 0,
    board: TriedOn = "local",
    study: StudyFile = None,
    board_python: BoardPython = None,
    task: OwnTask = None,
    checkpoint: Checkpoint = None,
    checkpoint_key: CheckpointKey = "",
    as_json: AsJson = False,
) -> None:
    """Build one artifact from a float ONNX model, and compare both. Its outputs are held against the model's.

    \b
    Example: edgedeploy quantize unet.onnx --target openvino --calibration images/ --colour grey --mean 0 --std 255 --out q
    """
    from edgedeploy.study.oneshot.desk import parse_shapes
    from edgedeploy.study.oneshot.quantize import quantize as make

    made = make(
        model,
        target=one_target(target),
        precision=precision,
        out=out_folder,
        calibration=calibration,
        images=images_table(colour, mean, std, value_range, page),
        shapes=parse_shapes(shape or []),
        calibrator=calibrator,
        quantizer=quantizer,
        weight_bits=weight_bits,
        board=None if board == "none" else board_named(board, study, board_python),
        task=task,
        checkpoint=checkpoint,
        checkpoint_key=checkpoint_key,
        tell=say,
    )
    if as_json:
        print_json(made.as_json())
    else:
        _show_quantized(made, str(task) if model is None else model.name, "local" if board == "none" else board)


@app.command()
def measure(
    model: ModelOrArtifact,
    board: BoardWord = None,
    target: BuiltFor = None,
    precision: BuiltIn = "float32",
    inputs: Inputs = None,
    colour: Colour = None,
    mean: Mean = None,
    std: Std = None,
    value_range: ValueRange = None,
    page: Page = None,
    shape: Shapes = None,
    threads: Threads = 0,
    queries: Queries = None,
    study: StudyFile = None,
    board_python: BoardPython = None,
    as_json: AsJson = False,
) -> None:
    """Measure one model or artifact on a board.

    Its float model is measured interleaved with it; exit code 4 for an invalid run.

    \b
    Example: edgedeploy measure q --board edge@cart-3.lab
    """
    from edgedeploy.spec.measuring import MeasureTable
    from edgedeploy.spec.study import load_spec
    from edgedeploy.study.oneshot.desk import parse_shapes
    from edgedeploy.study.oneshot.measure import measure as run

    table = MeasureTable() if study is None else load_spec(study)[0].measure
    found = run(
        model,
        board_named(board, study, board_python),
        target=one_target(target or ["onnxruntime"]),
        precision=precision,
        inputs=inputs,
        images=images_table(colour, mean, std, value_range, page),
        shapes=parse_shapes(shape or []),
        threads=threads,
        table=table if queries is None else table.model_copy(update={"queries": queries}),
        folder=None if study is None else study.resolve().parent,
        tell=say,
    )
    if as_json:
        print_json(found.as_json())
    else:
        _show_measured(found)
    if not found.valid:
        raise typer.Exit(EXIT_PARTIAL)


@app.command(cls=PickTookAValue)
def export(
    folder: Folder,
    out_folder: OutFolder,
    pick: Pick = False,
    variant: OfVariant = None,
    repository: Annotated[
        str | None,
        typer.Option(help="Layout of a model server instead: triton, triton-python or ovms.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy one artifact out of a study's folder. With it come its measurement, hashes, and how to load it.

    \b
    Example: edgedeploy export runs/cart --pick --out unet-cart
    """
    from edgedeploy.study.oneshot.export import NO_BUNDLE
    from edgedeploy.study.oneshot.export import export as copy

    made = copy(folder, out_folder, pick_or_variant(pick, variant), repository)
    if as_json:
        print_json(made.as_json())
        return
    what = "the pick" if made.picked else "not the study's pick"
    lines = [
        f"{made.measurement.variant.label}, {what}" + (f": {made.reason}." if made.reason else "."),
        f"File: {made.file}",
        *made.notes,
        NO_BUNDLE,
    ]
    for line in lines:
        out.print(escape(line), highlight=False)


def _show_measured(found: Any) -> None:
    from edgedeploy.report.oneshot import measured_table

    shown = measured_table(found)
    print_table(shown.title, shown.headers, shown.rows)
    for line in shown.notes:
        out.print(escape(line), highlight=False)


def _show_quantized(made: Any, name: str, board: str) -> None:
    from edgedeploy.evidence.quantities import quantity
    from edgedeploy.study.oneshot.quantize import distance_text

    before, after = (quantity(size, "size_bytes", "bytes") for size in (made.float_bytes, made.artifact.size_bytes))
    share = made.artifact.size_bytes / made.float_bytes
    what = f"{name} as {made.artifact.target} {made.artifact.precision}"
    lines = [
        f"{what}: {before} of float ONNX, {after} now ({share:.2f}\N{MULTIPLICATION SIGN})",
        f"Compared on {made.compared_on}.",
        *(f"Output {item.output}: {distance_text(item)}." for item in made.distances),
        *([f"int8 weights {made.weight_bits}."] if made.weight_bits else []),
        *(f"{note[:1].upper()}{note[1:]}." for note in made.notes),
        *made.accuracy_text,
        f"File: {made.file}",
        f"Next: edgedeploy measure {quote(str(made.folder))} --board {quote(board)}",
    ]
    for line in lines:
        out.print(escape(line), highlight=False)
