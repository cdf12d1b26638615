"""Commands around a bundle's signature and its form as one file: keygen, verify, pack, unpack."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edgedeploy.cli.app import AsJson, app, out, print_json
from edgedeploy.cli.options import BoardPython, StudyFile, board_named, complete_board
from edgedeploy.errors import SpecError

Bundle = Annotated[Path, typer.Argument(help="A bundle: its folder, or a .tar or .zip of it.", show_default=False)]


@app.command()
def keygen(
    out_file: Annotated[
        Path, typer.Argument(metavar="OUT", help="The private key; OUT.pub is the public one.", show_default=False)
    ],
) -> None:
    """Make a key pair that signs bundles (ECDSA over P-256). Nothing is ever written over.

    The private key stays with who makes bundles: only its owner may read the file. Give the public one to whoever runs them.

    Example: edgedeploy keygen lab.pem
    """
    from edgedeploy.study.bundle.sign import keygen as make

    public, key_id = make(out_file)
    out.print(escape(f"private key {out_file}, public key {public}\nkey id {key_id}"))


@app.command()
def verify(
    bundle: Bundle,
    trust: Annotated[Path | None, typer.Option(help="The maker's public key, a PEM file.", show_default=False)] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Look at no signature, only whether it is whole.")
    ] = False,
    on: Annotated[
        str, typer.Option(help="Refuse a bundle whose last day is before this one (2026-01-31).", show_default=False)
    ] = "",
    at_least: Annotated[int, typer.Option(help="Refuse releases before this one.", min=0)] = 0,
    board: Annotated[
        str | None,
        typer.Option(
            help="Load it on this board too: local, user@host, emulated:arm64.",
            show_default=False,
            autocompletion=complete_board,
        ),
    ] = None,
    study: StudyFile = None,
    board_python: BoardPython = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a bundle is whole and its maker's. Nothing of it is executed; the standard library is enough.

    With --board it is brought to a board and loaded there: verified again, compatible, golden vectors run.

    Exits 2 with the reason when it is refused: unsigned, untrusted, tampered, malformed, expired, downgrade, unreadable.

    Example: edgedeploy verify bundle/ --trust lab.pem.pub
    """
    from edgedeploy.study.bundle.check import check_bundle

    if (trust is None) != unsigned:
        found = "both were given" if unsigned else "neither was given"
        raise SpecError("--trust and --unsigned", found, "Give the maker's public key with --trust, or --unsigned")
    found_bundle = check_bundle(bundle, trust, on=on, at_least=at_least)
    loaded = None
    if board is not None or study is not None:
        from edgedeploy.study.bundle.on_board import load_on_board

        loaded = load_on_board(bundle, trust, board_named(board, study, board_python))
    if as_json:
        print_json({**found_bundle.as_json(), **({"board": asdict(loaded)} if loaded else {})})
        return
    signed = f"signed by {found_bundle.signer}" if found_bundle.signer else "its signature was not looked at"
    out.print(
        escape(
            f"{found_bundle.name} release {found_bundle.release} for {found_bundle.target}: {found_bundle.files} files, "
            f"{found_bundle.size_bytes} bytes, whole\nidentity {found_bundle.identity}\n{signed}"
        )
    )
    if loaded is not None:
        worst = max(loaded.proof.relative_l2.values(), default=0.0)
        proved = f"{loaded.proof.cases} golden vectors within {worst:.2g} of their norm"
        out.print(escape(f"ready on {board or 'the board'}: {loaded.device}, {proved}"))


Before = Annotated[
    Path | None,
    typer.Option(
        "--from", help="A bundle that is there already (folder, .tar, .zip or whole .edlink).", show_default=False
    ),
]


@app.command()
def pack(
    bundle: Bundle,
    out_file: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="The file: .edlink (for a slow link), .tar or .zip, with .age behind it if encrypted.",
            show_default=False,
        ),
    ],
    recipient: Annotated[
        list[str] | None,
        typer.Option(help="A public key of age that may read it (age1...); may be given again.", show_default=False),
    ] = None,
    base: Before = None,
    as_json: AsJson = False,
) -> None:
    """Make one file of a bundle, the same bytes each time. A .tar or .zip has it as it is, an .edlink is for a slow link.

    An .edlink has the packed weights of a variant with `storage` once, and of every other file what they do not say.

    \b
    Example: edgedeploy pack release-3/ release-3.edlink --from release-2/
    """
    from edgedeploy.study.bundle.link import WEIGHTS
    from edgedeploy.study.bundle.pack import pack as make

    made = make(bundle, out_file, recipient or (), base)
    if as_json:
        print_json({**asdict(made), "path": str(out_file)})
        return
    update = f", an update of bundle {made.base[:12]}" if made.base else ""
    out.print(escape(f"{out_file}: {made.size_bytes} bytes for {made.bundle_bytes} of files{update}"))
    if out_file.name.removesuffix(".age").endswith(".edlink") and not made.has_weights:
        told = f"It has no {WEIGHTS}: bundles of variants with `storage` have, and take far fewer bytes"
        out.print(escape(told), highlight=False)


@app.command()
def unpack(
    archive: Annotated[Path, typer.Argument(help="What `edgedeploy pack` made.", show_default=False)],
    out_folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="A folder that is not there yet.", show_default=False)
    ],
    identity: Annotated[
        Path | None, typer.Option(help="Private key of age, where it is encrypted.", show_default=False)
    ] = None,
    base: Before = None,
    trust: Annotated[
        Path | None,
        typer.Option(
            help="The maker's public key: nothing is kept unless it signed what comes out.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a packed bundle into a new folder. It is byte for byte what was packed, or nothing; no torch is needed.

    Its files are looked at before the first is written. With --trust they are verified before they are kept.

    \b
    Example: edgedeploy unpack release-3.edlink release-3/ --from release-2/ --trust lab.pem.pub
    """
    from edgedeploy.study.bundle.pack import unpack as write

    tree_size = write(archive, out_folder, identity, base=base, trust=trust)
    if as_json:
        print_json({"path": str(out_folder), "size_bytes": tree_size, "verified": trust is not None})
        return
    then = f"signed by the key in {trust}" if trust else f"Verify it: edgedeploy verify {out_folder} --trust KEY"
    out.print(escape(f"{out_folder}: {tree_size} bytes. {then}"))
