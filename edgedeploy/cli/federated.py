"""``edgedeploy federate`` and ``edgedeploy site``: one checkpoint, many hospitals, each with its own images and board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edgedeploy.cli.app import EXIT_GOAL_NOT_MET, EXIT_PARTIAL, AsJson, app, out, print_json, print_table
from edgedeploy.cli.loudness import print_line, say
from edgedeploy.cli.watch import Watch

Once = Annotated[bool, typer.Option("--once", help="Take what is there now, and do not wait for more.")]


@app.command()
def federate(
    sites: Annotated[Path, typer.Argument(metavar="SITES", help="Sites file (TOML).", show_default=False)],
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the release, instead of the file's.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")] = False,
    once: Once = False,
    as_json: AsJson = False,
) -> None:
    """Release one checkpoint to all sites or to none. Every site is asked for its cell of the matrix.

    Exits 0 when it is released, 1 when it is refused, 4 when answers are missing: the same command with --resume goes on.

    \b
    Example: edgedeploy federate sites.toml --out releases/thyroid
    """
    from edgedeploy.federated.coordinator import Coordinator
    from edgedeploy.federated.page import headings, rows_of, sentences, write_pages
    from edgedeploy.federated.served import serving_of
    from edgedeploy.federated.specs import load_sites
    from edgedeploy.runtime.files import sha256_file

    spec, source = load_sites(sites)
    place = out_folder if out_folder is not None else sites.resolve().parent / spec.federate.out
    coordinator = Coordinator(spec, source, place, lambda line: say(line, stamped=True))
    try:
        release = coordinator.run(resume=resume, once=once, serving=serving_of(coordinator))
    except KeyboardInterrupt:
        print_line(f"Interrupted. {place} is usable as it is; --resume goes on.")
        raise typer.Exit(EXIT_PARTIAL) from None
    states, candidates = coordinator.states(), coordinator.candidates
    facts = {"release": coordinator.release, "checkpoint_sha256": coordinator.checkpoint_sha256}
    if coordinator.ranges is not None:
        facts["ranges_sha256"] = sha256_file(coordinator.ranges)
    write_pages(place, spec.federate.name, facts, states, candidates, release)
    if as_json:
        print_json({**facts, **release.as_json()})
    else:
        print_table(spec.federate.name, headings(states), rows_of(states, candidates, release))
        for line in sentences(states, candidates, release):
            out.print(escape(line), highlight=False)
    if release.outcome == "undecided":
        print_line(f"Waiting for {', '.join(coordinator.waiting_for())}. Go on with --resume.")
        raise typer.Exit(EXIT_PARTIAL)
    raise typer.Exit(0 if release.outcome == "released" else EXIT_GOAL_NOT_MET)


@app.command()
def site(
    site_file: Annotated[Path, typer.Argument(metavar="SITE", help="Site file (TOML).", show_default=False)],
    once: Once = False,
) -> None:
    """Answer a coordinator's requests beside a hospital's own board. Images stay here; `left.jsonl` in the
    site's folder lists all that leaves.

    Exits 0 when the release has ended, or with --once when there is no request left, 3 when the board failed (the same
    command goes on), 4 when it was interrupted.

    \b
    Example: edgedeploy site site.toml
    """
    from edgedeploy.federated.connection import mailbox_of
    from edgedeploy.federated.site import Site
    from edgedeploy.federated.specs import load_site

    spec, source = load_site(site_file)
    try:
        with Watch() as watch:
            served = Site(spec, source, mailbox_of(spec, source), lambda line: say(line, stamped=True), watch)
            outcome = served.serve(once=once)
    except KeyboardInterrupt:
        print_line("Interrupted. What was measured is kept; the same command goes on.")
        raise typer.Exit(EXIT_PARTIAL) from None
    if outcome:
        out.print(f"The release is {outcome}.", highlight=False)
