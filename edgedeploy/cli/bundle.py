"""``edgedeploy bundle``: what an integrator gets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edgedeploy.cli.app import AsJson, Folder, app, out, print_json
from edgedeploy.cli.older import PickTookAWord
from edgedeploy.cli.options import OfVariant, Pick, pick_or_variant
from edgedeploy.records.units import human


@app.command(cls=PickTookAWord)
def bundle(
    folder: Folder,
    out_folder: Annotated[Path, typer.Option("--out", help="New folder for the bundle.", show_default=False)],
    pick: Pick = False,
    variant: OfVariant = None,
    sign: Annotated[
        Path | None, typer.Option(help="Private key (PEM, P-256) that signs it.", show_default=False)
    ] = None,
    name: Annotated[
        str, typer.Option(help="What its releases have in common (the study's name).", show_default=False)
    ] = "",
    release: Annotated[int, typer.Option(help="Rises with each release; devices refuse an older one.")] = 1,
    not_after: Annotated[
        str, typer.Option(help="Last day that its maker stands for it, as 2027-12-31.", show_default=False)
    ] = "",
    golden: Annotated[
        str, typer.Option(help="Golden inputs: synthetic, or cases (of patients, maybe: they leave with it).")
    ] = "synthetic",
    supplier: Annotated[str, typer.Option(help="For the bill of materials.", show_default=False)] = "",
    support: Annotated[str, typer.Option(help="Level of support, for the same.", show_default=False)] = "",
    end_of_support: Annotated[str, typer.Option(help="A day, for the same.", show_default=False)] = "",
    as_json: AsJson = False,
) -> None:
    """One variant of a study as a folder for a product.

    It has artifact, pipeline, golden vectors, claims and bill of materials.

    \b
    Example: edgedeploy bundle runs/cart --pick --out cart-3 --release 3 --sign lab.pem
    """
    from edgedeploy.study.bundle.choice import PICK
    from edgedeploy.study.bundle.make import make_bundle
    from edgedeploy.study.bundle.options import BundleOptions

    options = BundleOptions(
        name=name,
        release=release,
        not_after=not_after,
        golden=golden,  # type: ignore[arg-type]  # held against the known words there
        supplier=supplier,
        support=support,
        end_of_support=end_of_support,
        sign=sign,
    )
    made = make_bundle(folder, pick_or_variant(pick, variant) or PICK, out_folder, options)
    if as_json:
        print_json(made.as_json())
        return
    if made.warning:
        out.print(escape(f"WARNING: {made.warning}"), highlight=False)
    lines = (
        f"Bundle {made.name}, release {made.release}: {made.label} ({made.variant})",
        f"Golden vectors: {made.golden}",
        f"{made.files} files, {human(made.size_bytes, 'bytes')}; identity {made.identity}",
        f"Signed by key {made.signer}" if made.signer else "Not signed: devices refuse it. Sign it with --sign key.pem",
        f"Folder: {made.folder}",
    )
    for line in lines:
        out.print(escape(line), highlight=False)


@app.command(name="hand-over")
def hand_over(
    bundle_folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle.", show_default=False)],
    layout: Annotated[str, typer.Option("--to", help="oci, triton, monai or mlflow.", show_default=False)],
    out_folder: Annotated[Path, typer.Option("--out", help="New folder for it.", show_default=False)],
    trust: Annotated[
        Path | None, typer.Option(help="Public key whose signature has to hold first.", show_default=False)
    ] = None,
) -> None:
    """A bundle as another tool has it: OCI, Triton, MONAI, MLflow. The OCI image layout follows ModelPack.

    \b
    Example: edgedeploy hand-over cart-3 --to oci --out cart-3.oci --trust lab.pem.pub
    """
    from edgedeploy.study.bundle.hand_over import hand_over as make

    make(bundle_folder, layout, out_folder, trust)
    out.print(escape(f"Folder: {out_folder}"), highlight=False)
