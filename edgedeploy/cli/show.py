"""Commands that read a study's folder: its front, its report, single layers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edgedeploy.cli.app import EXIT_GOAL_NOT_MET, EXIT_PARTIAL, AsJson, Folder, app, out, print_json, print_table
from edgedeploy.cli.older import ToWasAFile
from edgedeploy.errors import SpecError


@app.command()
def front(folder: Folder, as_json: AsJson = False) -> None:
    """The front with its intervals, the pick and its reason.

    \b
    Example: edgedeploy front runs/cart --json
    """
    show_front(folder, as_json)


def show_front(folder: Path, as_json: bool, none: int = EXIT_GOAL_NOT_MET) -> None:
    """``none`` is the exit code where the front is empty."""
    from edgedeploy.report.terminal import front_table
    from edgedeploy.study.front import read_front

    found = read_front(folder)
    if as_json:
        print_json(found.as_json())
    else:
        shown = front_table(found)
        print_table(shown.title, shown.headers, shown.rows)
        for line in (*shown.notes, *found.explanation()):
            out.print(escape(line), highlight=False)
    if not found.members:
        raise typer.Exit(none)


@app.command(cls=ToWasAFile)
def report(
    folder: Folder,
    to: Annotated[Path | None, typer.Option("--out", help="HTML file (DIR/report.html).")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write this Markdown page for a pull request instead; with --out, both.")
    ] = None,
) -> None:
    """Write one offline HTML file, or one Markdown page. Both are made of the stored evidence alone.

    \b
    Example: edgedeploy report runs/cart --out cart.html
    """
    from edgedeploy.report.make import make_markdown, make_report

    written = [] if markdown is None else [make_markdown(folder, markdown)]
    if to is not None or markdown is None:
        written.append(make_report(folder, to))
    for path in written:
        out.print(f"Report: {escape(str(path.resolve()))}", highlight=False)


@app.command()
def plot(
    folder: Folder,
    to: Annotated[Path, typer.Option("--out", help="File that ends with .svg or .png.", show_default=False)],
) -> None:
    """Draw the front with its intervals and the pick, for slides.

    \b
    Example: edgedeploy plot runs/cart --out front.svg
    """
    from edgedeploy.report.slides import write_plot
    from edgedeploy.study.front import read_front

    path = write_plot(read_front(folder), to)
    out.print(f"Plot: {escape(str(path.resolve()))}", highlight=False)


@app.command()
def debug(
    place: Annotated[Path, typer.Argument(help="Folder of a stored artifact, or of a study.", show_default=False)],
    variant: Annotated[str | None, typer.Option(help="Digest of the study's variant (its beginning).")] = None,
    reference: Annotated[Path | None, typer.Option(help="ONNX file to compare with (the study's own).")] = None,
    inputs: Annotated[Path | None, typer.Option(help="Inputs, an .npz (the study's own).")] = None,
    cases: Annotated[int, typer.Option(min=1, max=64, help="How many of the inputs to run.")] = 4,
    threshold_db: Annotated[float | None, typer.Option(help="What counts as bad (the parity tolerance).")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare an artifact with its float reference layer by layer. Exit code 1 when a layer is bad.

    \b
    Example: edgedeploy debug runs/cart --variant 3f9a12cd
    """
    from edgedeploy.diagnose.layers import debug as look

    found = look(place, variant=variant, reference=reference, inputs=inputs, cases=cases, threshold_db=threshold_db)
    if as_json:
        print_json(found.as_json())
    else:
        bad = found.first_bad
        rows = [
            [
                f"{layer.layer}{' *' if layer is bad else ''}",
                layer.operator,
                layer.sqnr_text,
                f"{layer.max_abs:.3g}",
                layer.added_text,
                " ".join(layer.with_layers),
            ]
            for layer in found.layers
        ]
        headers = ["layer", "operator", "SQNR dB", "max abs error", "noise added", "together with"]
        print_table(f"{found.artifact.target} {found.artifact.precision} against its reference", headers, rows)
        for line in (f"Run on {found.inputs}.", *found.notes):
            out.print(escape(line), highlight=False)
        if found.noisiest is not None:
            text = f"Most noise enters at {found.noisiest.layer} ({found.noisiest.added_text} of the signal)."
            out.print(escape(text), highlight=False)
        limit = f"below {found.threshold_db:.1f} dB"
        said = f"First layer {limit}: {bad.layer}" if bad else f"No layer is {limit}"
        out.print(escape(f"{said} ({len(found.layers)} compared)."), highlight=False)
    if found.first_bad is not None:
        raise typer.Exit(EXIT_GOAL_NOT_MET)


@app.command()
def layers(
    folder: Folder,
    variant: Annotated[
        str | None, typer.Option(help="Digest of a measured variant (its beginning; `front --json` names them).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Where each layer ran and how long it took, beside the baseline.

    Of the pick (else of what comes nearest), or of another variant; exit code 4 without a profile.

    \b
    Example: edgedeploy layers runs/cart
    """
    from edgedeploy.evidence.layers import beside, held_against, profile_of
    from edgedeploy.study.front import read_front, read_measurement

    if variant is None:
        picked = read_front(folder).featured
        if picked is None:
            found_none = "the study has no pick and nothing near one, whose layers are shown when no variant is named"
            raise SpecError(
                f"layers of {folder}", found_none, "Add --variant; `edgedeploy front --json` has the digests"
            )
        variant = picked
    found = read_measurement(folder, variant)
    sides = {side: profile_of(found, side) for side in ("candidate", "baseline")}
    rows = beside(sides["candidate"], sides["baseline"])
    p50_ns = found.metrics.get("latency_p50_ns")
    against = held_against(sides["candidate"], p50_ns)
    if as_json:
        profiles = {side: profile.as_json() for side, profile in sides.items()}
        total = {"layers_ns": sides["candidate"].total_ns, "latency_p50_ns": p50_ns, "text": against}
        print_json({**profiles, "beside": [row.as_json() for row in rows], "sum": total})
    else:
        cells = [[row.layer, row.operator, row.place, *row.times()] for row in rows]
        print_table(found.variant.label, ["layer", "operator", "kernel and device", "time", "baseline"], cells)
        if against:
            out.print(escape(against), highlight=False)
        for side, profile in sides.items():
            out.print(escape(f"{side}: {profile.placement_text()}"), highlight=False)
    if sides["candidate"].missing is not None:
        raise typer.Exit(EXIT_PARTIAL)
