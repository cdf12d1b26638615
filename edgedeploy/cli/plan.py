"""The command that looks ahead: what a study can prove, what it tries, how long it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from edgedeploy.cli.app import AsJson, app, out, print_json, print_table
from edgedeploy.cli.watch import duration

MOST_NAMED = 8
"""Seeds that are named; of more, how many there are."""


@app.command()
def plan(
    study: Annotated[Path, typer.Argument(help="Study file (TOML).", show_default=False)],
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the study, if it was begun.", show_default=False)
    ] = None,
    board: Annotated[str | None, typer.Option(help="Board of the study file to ask (the first one).")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Variants to evaluate, instead of the file's.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a search could prove, what it would try, and for how long. Writes nothing.

    \b
    Example: edgedeploy plan study.toml
    """
    from edgedeploy.api import load_study

    found = load_study(study).plan(folder, board=board, trials=trials)
    if as_json:
        print_json(found.as_json())
        return
    _show_power(found)
    _show_tried(found)
    _show_times(found)
    for line in found.notes:
        _say(line)


def _show_power(found: Any) -> None:
    rows = [
        [
            power.metric,
            reach.split,
            str(reach.cases) if reach.groups is None else f"{reach.cases} in {reach.groups} groups",
            f"{power.text(reach.spread.sd)} ({reach.spread.of or 'assumed'})",
            *(power.text(margin) for margin in reach.margins.values()),
            power.text(reach.margin_of_all),
            f"{reach.lost_share:.1%}",
        ]
        for power in found.powers
        for reach in power.reaches
    ]
    headers = [
        "endpoint",
        "split",
        "cases",
        "sd of differences",
        "bounds at 80 %",
        "at 90 %",
        "of all variants",
        "may break",
    ]
    if rows:
        print_table(f"What the study {found.study!r} can prove", headers, rows)
    for power in found.powers:
        for text in power.margin_lines():
            _say(f"{text[:1].upper()}{text[1:]}.")
    for line in _READ:
        _say(line)


_READ = (
    "A variant that loses nothing is shown to lose no more than this with a chance of 80 % or 90 %; a true loss adds to it.",
    "`of all variants`: the same at 80 % when as many are compared as the budget has (the strictest step of Holm).",
    "`may break`: the share of all cases that may break although none of these does (95 % bound).",
)


def _show_tried(found: Any) -> None:
    if found.tried is None:
        _say(f"What is tried: not known, the board was not reached ({found.unreached})")
        return
    tried = found.tried
    rows = [
        [
            kind.target,
            kind.precision,
            ", ".join(f"{width:g}" for width in kind.widths),
            str(kind.architectures),
            str(kind.variants),
        ]
        for kind in tried.kinds
    ]
    counted = (
        f"{tried.variants} variants"
        if tried.whole
        else f"more variants than are counted (a sample of {tried.variants})"
    )
    print_table("What is tried", ["target", "precision", "widths", "architectures", "variants"], rows)
    already = f", {tried.done} are evaluated already" if tried.done else ""
    most = min(tried.budget, tried.variants) if tried.whole else tried.budget
    _say(f"{tried.combinations} combinations are {counted}; at most {most} are evaluated{already}.")
    more = f" and {len(tried.seeds) - MOST_NAMED} more" if len(tried.seeds) > MOST_NAMED else ""
    _say(f"First: {', '.join(tried.seeds[:MOST_NAMED])}{more}.")
    for line in tried.left_out:
        _say(f"Left out: {line}")
    for line in tried.later:
        _say(f"Made later: {line}")


def _show_times(found: Any) -> None:
    rows = [
        [
            item.phase,
            "-" if item.times == 0 else _seconds(item.each_s),
            "?" if item.times is None else f"{'at most ' if item.at_most else ''}{item.times}",
            _seconds(item.seconds),
            item.why,
        ]
        for item in found.times
    ]
    print_table("How long it takes", ["phase", "each", "times", "in all", ""], rows)
    ends = f"[budget] wall_clock ends a run after {duration(found.wall_clock_s)}"
    if found.seconds is None:
        _say(f"How long it takes is not known yet; {ends}.")
        return
    without = f", without {', '.join(found.unknown)}" if found.unknown else ""
    _say(f"In all about {duration(found.seconds)}{without}; {ends}.")


def _seconds(value: float | None) -> str:
    if value is None:
        return "not known yet"
    return f"{value:.2g} s" if value < 10 else duration(value)


def _say(line: str) -> None:
    out.print(escape(line), highlight=False)
