"""``edgedeploy activate``: a bundle becomes a device's current release."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edgedeploy.cli.app import AsJson, app, out, print_json
from edgedeploy.errors import SpecError


@app.command()
def activate(
    root: Annotated[Path, typer.Option(help="Where the device keeps releases.", show_default=False)],
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle: its folder, or a .tar or .zip of it.", show_default=False)
    ] = None,
    trust: Annotated[Path | None, typer.Option(help="The maker's public key, a PEM file.", show_default=False)] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Take a bundle that nobody signed.")] = False,
    previous: Annotated[
        bool, typer.Option("--previous", help="Go back to the release before the current one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a bundle the current release of a device. It is one step, once its golden vectors passed there.

    A release older than one that was active there is refused. What fails leaves the release before.
    On a device without this program: python -m edgedeploy.runtime activate.

    Example: edgedeploy activate bundle/ --trust lab.pem.pub --root models
    """
    from edgedeploy.study.bundle.activation import activate_bundle, go_back

    if (trust is None) != unsigned:
        found = "both were given" if unsigned else "neither was given"
        raise SpecError("--trust and --unsigned", found, "Give the maker's public key with --trust, or --unsigned")
    if previous:
        if bundle is not None:
            raise SpecError("--previous", "a bundle was given too", "Give one of them")
        done = go_back(trust, root)
    elif bundle is None:
        raise SpecError("activate", "no bundle was given", "Give its folder, or --previous")
    else:
        done = activate_bundle(bundle, trust, root)
    if as_json:
        print_json(asdict(done))
        return
    before = "nothing changed" if done.before == done.identity else f"before: {done.before or 'nothing'}"
    out.print(escape(f"{done.name} release {done.release} is current at {root}\nidentity {done.identity}\n{before}"))
