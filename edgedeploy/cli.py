"""The command line. It prints and exits; everything it shows comes from the API.

Exit codes: 0 ok, 1 goal not met, 2 usage, 3 board or infrastructure, 4 partial (interrupted, or a number missing).
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer.core import TyperGroup

from edgedeploy.errors import SpecError, nearest

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

EXIT_GOAL_NOT_MET = 1
EXIT_BOARD = 3
EXIT_PARTIAL = 4

LOG_EVERY_S = 30.0
"""Where there is no terminal, a line about the phase at hand appears at most so often."""

Folder = Annotated[Path, typer.Argument(help="A study's folder (the --out of a search).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class Watch:
    """Shows a running study: a bar with ETA and the best so far on a terminal, plain lines anywhere else."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.completed:.0f}/{task.total:.0f}[/] variants"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("ETA {task.fields[eta]}"),
            TextColumn("{task.description}"),
            console=err,
            transient=True,
        )
        self._quiet_until_s = 0.0
        self._interrupted = False
        self._bar = self._progress.add_task("", total=None, eta="?", start=True)

    def __enter__(self) -> Watch:
        self._handler = signal.getsignal(signal.SIGINT) or signal.SIG_DFL
        if self._handler is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._interrupt)
        if err.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self._handler)
        if err.is_terminal:  # stopping what was never started still prints an empty line
            self._progress.stop()
        if self._interrupted and isinstance(exc[1], Exception):
            raise KeyboardInterrupt from exc[1]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C. An exception that is raised inside a finaliser is swallowed by Python, and a library that it falls into
        may turn it into an error of its own (an extension module's import does), so it is remembered as well and raised
        again at the next event or at the end."""
        self._interrupted = True
        raise KeyboardInterrupt

    def __call__(self, event: Any) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        eta = "?" if event.eta_s is None else duration(event.eta_s) + "+" * event.eta_at_least
        if event.kind != "phase" or self._is_due():
            line = f"[{event.done}/{event.total}, ETA {eta}] {event.text}"
            if event.best:
                line += f"  | best so far: {event.best}"
            err.print(escape(line), highlight=False)
        self._progress.update(
            self._bar, total=event.total, completed=event.done, eta=eta, description=escape(event.text[:90])
        )

    def _is_due(self) -> bool:
        """Whether a log without a bar should hear of the phase at hand: a night's log tells where it stands."""
        now_s = time.monotonic()
        if err.is_terminal or now_s < self._quiet_until_s:
            return False
        self._quiet_until_s = now_s + LOG_EVERY_S
        return True


@app.command()
def search(
    study: Annotated[Path, typer.Argument(help="Study file (TOML).", show_default=False)],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the study.", show_default=False)],
    trials: Annotated[int | None, typer.Option(min=1, help="Variants to evaluate, instead of the file's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")] = False,
    board: Annotated[str | None, typer.Option(help="Board of the study file to measure on (the first one).")] = None,
    boards: Annotated[
        str | None, typer.Option(help="Several boards of one kind that share the work: a,b,c.", show_default=False)
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="PostgreSQL URL for the history of proposals.", show_default=False)
    ] = None,
    dask: Annotated[
        str | None, typer.Option(help="Dask scheduler whose workers have the boards.", show_default=False)
    ] = None,
    no_confirm: Annotated[bool, typer.Option("--no-confirm", help="Leave the confirmation split closed.")] = False,
) -> None:
    """Search, measure and keep: Ctrl-C leaves a folder that --resume goes on with."""
    from edgedeploy.api import load_study

    if board is not None and boards is not None:
        raise SpecError("--board and --boards", "both were given", "Name one board or several")
    names = [] if boards is None else [name.strip() for name in boards.split(",")]
    try:
        with Watch() as watch:
            result = load_study(study).run(
                out_folder,
                trials=trials,
                resume=resume,
                board=board,
                boards=names,
                storage=storage,
                dask=dask,
                confirm=not no_confirm,
                observer=watch,
            )
    except KeyboardInterrupt:
        err.print(f"Interrupted. {escape(str(out_folder))} is usable as it is; --resume goes on.", highlight=False)
        raise typer.Exit(EXIT_PARTIAL) from None
    err.print(f"{result.evaluated} variants evaluated; ended because of: {result.reason}.", highlight=False)
    if result.reason == "wall_clock":
        missing = f"{result.wanted - result.evaluated} of {result.wanted} variants are missing: the time is over"
        cut = f" ({result.cut})" if result.cut else ""
        again = f"{shlex.quote(str(study))} --out {shlex.quote(str(out_folder))} --resume"
        err.print(escape(f"{missing}{cut}. Go on: edgedeploy search {again}"), highlight=False)
    _show_front(out_folder, as_json=False, none=EXIT_PARTIAL if result.partial else EXIT_GOAL_NOT_MET)


@app.command()
def work(
    study: Annotated[Path, typer.Argument(help="Study file that describes the board.", show_default=False)],
    board: Annotated[str, typer.Option(help="The board that this process has.", show_default=False)],
    dask: Annotated[str, typer.Option(help="Address of the Dask scheduler: tcp://host:8786.", show_default=False)],
) -> None:
    """Offer one board to a Dask cluster, until the scheduler or Ctrl-C ends it; `search --dask` measures on it."""
    from edgedeploy.cluster import work as serve
    from edgedeploy.spec.study import load_spec

    serve(load_spec(study)[0].board(board).model_dump(), dask)


@app.command()
def front(folder: Folder, as_json: AsJson = False) -> None:
    """The front with its intervals, the pick and its reason."""
    _show_front(folder, as_json)


def _show_front(folder: Path, as_json: bool, none: int = EXIT_GOAL_NOT_MET) -> None:
    """``none`` is the exit code where the front is empty."""
    from edgedeploy.evidence.text import front_table
    from edgedeploy.reporting import read_front

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


@app.command()
def report(
    folder: Folder, to: Annotated[Path | None, typer.Option(help="HTML file (DIR/report.html).")] = None
) -> None:
    """Write one offline HTML file from the stored evidence."""
    from edgedeploy.reporting import make_report

    path = make_report(folder, to)
    out.print(f"Report: {escape(str(path.resolve()))}", highlight=False)


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
    """Compare an artifact with its float reference layer by layer; exit code 1 when a layer is bad."""
    from edgedeploy.debug import debug as look

    found = look(place, variant=variant, reference=reference, inputs=inputs, cases=cases, threshold_db=threshold_db)
    if as_json:
        print_json(found.as_json())
    else:
        bad = found.first_bad
        rows = [
            [
                f"{layer.layer}{' *' if layer is bad else ''}",
                layer.operator,
                f"{layer.sqnr_db:.1f}",
                f"{layer.max_abs:.3g}",
                f"{layer.added:.2g}",
                " ".join(layer.with_layers),
            ]
            for layer in found.layers
        ]
        headers = ["layer", "operator", "SQNR dB", "max abs error", "noise added", "together with"]
        print_table(f"{found.artifact.target} {found.artifact.precision} against its reference", headers, rows)
        for line in (f"Run on {found.inputs}.", *found.notes):
            out.print(escape(line), highlight=False)
        if found.noisiest is not None:
            text = f"Most noise enters at {found.noisiest.layer} ({found.noisiest.added:.2g} of the signal)."
            out.print(escape(text), highlight=False)
        limit = f"below {found.threshold_db:.1f} dB"
        said = f"First layer {limit}: {bad.layer}" if bad else f"No layer is {limit}"
        out.print(escape(f"{said} ({len(found.layers)} compared)."), highlight=False)
    if found.first_bad is not None:
        raise typer.Exit(EXIT_GOAL_NOT_MET)


@app.command()
def layers(
    folder: Folder,
    variant: Annotated[str, typer.Option(help="Digest of a measured variant (its beginning).", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Where each layer of a measured variant ran and how long it took, beside the baseline's; exit code 4 without it."""
    from edgedeploy.evidence.layers import beside, profile_of
    from edgedeploy.reporting import read_measurement

    found = read_measurement(folder, variant)
    sides = {side: profile_of(found, side) for side in ("candidate", "baseline")}
    rows = beside(sides["candidate"], sides["baseline"])
    if as_json:
        profiles = {side: profile.as_json() for side, profile in sides.items()}
        print_json({**profiles, "beside": [row.as_json() for row in rows]})
    else:
        cells = [[row.layer, row.operator, row.place, *row.times()] for row in rows]
        print_table(found.variant.label, ["layer", "operator", "kernel and device", "time", "baseline"], cells)
        for side, profile in sides.items():
            out.print(escape(f"{side}: {profile.placement_text()}"), highlight=False)
    if sides["candidate"].missing is not None:
        raise typer.Exit(EXIT_PARTIAL)


@app.command()
def targets(as_json: AsJson = False) -> None:
    """Backend toolchains: which work here, and the command that mends the others."""
    from edgedeploy.diagnosis import target_findings

    _show_findings("Targets", target_findings, as_json)


class LooksUnlessTold(TyperGroup):
    """A group whose first command is meant when none is named: ``boards study.toml`` is ``boards look study.toml``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named else ["look", *args])


boards = typer.Typer(cls=LooksUnlessTold, rich_markup_mode=None, help="Look at boards, or create an emulated one.")
app.add_typer(boards, name="boards")


@boards.command()
def create(
    machine: Annotated[str, typer.Argument(help="arm64, arm64-system or x86-avx2.", show_default=False)],
) -> None:
    """Make an emulated processor ready on this host: build an Arm board's image, once (root; downloads packages)."""
    from edgedeploy.boards.creating import create as make

    try:
        make(machine, lambda line: err.print(escape(line), highlight=False))
    except KeyboardInterrupt:
        err.print("Interrupted: nothing half-built was kept.", highlight=False)
        raise typer.Exit(EXIT_PARTIAL) from None
    out.print(f'Ready: [[boards]] kind = "emulated:{machine}"', highlight=False, markup=False)


@boards.command()
def look(
    study: Annotated[
        Path | None, typer.Argument(help="Study file whose boards to look at.", show_default=False)
    ] = None,
    catalog: Annotated[bool, typer.Option("--catalog", help="Describe the kinds of board that are known.")] = False,
    as_json: AsJson = False,
    lift: Annotated[str | None, typer.Option(help="Take this board out of quarantine.", show_default=False)] = None,
) -> None:
    """Boards of a study file (or the ones that need none): reach each, and say what it is."""
    if catalog:
        _show_catalog(as_json)
        return
    if lift is not None:
        from edgedeploy.boards.care.quarantine import Quarantine

        for record in Quarantine().lift(lift):
            out.print(escape(f"{record.name} is free again; it was set aside for: {record.cause}"), highlight=False)
        return
    from edgedeploy.diagnosis import DEFAULT_BOARDS, board_findings
    from edgedeploy.spec.study import load_spec

    tables = DEFAULT_BOARDS if study is None else load_spec(study)[0].boards
    _show_findings("Boards", lambda: board_findings(tables), as_json)


def _show_catalog(as_json: bool) -> None:
    from edgedeploy.boards.catalog import load_catalog

    found = load_catalog()
    if as_json:
        print_json([board.as_json() for board in found])
        return
    for board in found:
        rows = [[kind, text, board.sources[source]] for kind, text, source in board.lines()]
        print_table(f"{board.id}: {board.name}", ["what", "fact", "source"], rows)


@app.command()
def doctor(
    study: Annotated[
        Path | None, typer.Argument(help="Study file that describes the board.", show_default=False)
    ] = None,
    board: Annotated[str | None, typer.Option(help="Look at this board alone.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Everything a study needs on this host, and which precisions are worth trying on each board."""
    from edgedeploy.diagnosis import DEFAULT_BOARDS, board_findings, choose_boards, machine_findings, target_findings
    from edgedeploy.spec.study import load_spec

    tables = DEFAULT_BOARDS if study is None else load_spec(study)[0].boards
    if board is not None:
        chosen = choose_boards(tables, board)
        _show_findings("Doctor", lambda: board_findings(chosen), as_json)
        return
    _show_findings("Doctor", lambda: [*machine_findings(), *target_findings(), *board_findings(tables)], as_json)


@app.command()
def recipe(
    name: Annotated[str | None, typer.Argument(help="demo, usgra-seg, ...", show_default=False)] = None,
    within: Annotated[
        str | None, typer.Option(help="Fit the demo to this host: time that it may take, such as '17 min'.")
    ] = None,
) -> None:
    """Print a study file that ships with edgedeploy; without a name, list them."""
    files = {path.name.removesuffix(".toml"): path for path in resources.files("edgedeploy.recipes").iterdir()}
    names = sorted(key for key, path in files.items() if path.name.endswith(".toml"))
    if name is None:
        sys.stdout.write("\n".join(names) + "\n")
        return
    if name not in names:
        raise SpecError(f"recipe {name!r}", "there is none of that name", nearest(name, names))
    text = files[name].read_text(encoding="utf-8")
    if within is not None:
        from edgedeploy.fitting import fit_recipe
        from edgedeploy.records.units import parse_quantity

        try:
            within_s = parse_quantity(within, "s")
        except ValueError as exc:
            raise SpecError("--within", str(exc)) from None
        text, said = fit_recipe(name, text, within_s)
        err.print(escape(f"Fitted to this host: {said}."), highlight=False)
    sys.stdout.write(text)


def _show_findings(title: str, look: Callable[[], Sequence[Any]], as_json: bool) -> None:
    findings = look()
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        marks = {True: "ok", False: "MISSING", None: "-"}
        rows = [[finding.what, marks[finding.ok], finding.found, finding.remedy] for finding in findings]
        print_table(title, ["what", "", "found", "what to do"], rows)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(EXIT_BOARD)


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=escape(title), title_justify="left")
    for header in headers:
        table.add_column(escape(header), overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(width=None if out.is_terminal else 160).print(table)


def duration(seconds: float) -> str:
    """``1:05:09`` or ``4:30``."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
