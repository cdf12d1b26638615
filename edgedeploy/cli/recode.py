"""The command that codes an image, or a DICOM clip, anew and writes DICOM in the codec's transfer syntax."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edgedeploy.cli.app import AsJson, app, out, print_json
from edgedeploy.errors import DataError, SpecError, TargetUnavailable


@app.command()
def recode(
    image: Annotated[
        Path, typer.Argument(metavar="IN", help="A DICOM file, or an image (png, tif, jpg ...).", show_default=False)
    ],
    out_file: Annotated[Path, typer.Argument(metavar="OUT", help="The DICOM file to write.", show_default=False)],
    codec: Annotated[
        str, typer.Option(help="jpeg-q90, jpegls, jpegls-near2, j2k, j2k-psnr45, htj2k, htj2k-step0.02, jxl, jxl-d1.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write DICOM in the transfer syntax of an image codec. Each frame is decoded again and held against its image first.

    What an image that is no DICOM becomes is a secondary capture of no patient.

    Example: edgedeploy recode clip.dcm smaller.dcm --codec jpegls-near2
    """
    from edgedeploy.runtime.dicom import DicomError, open_clip
    from edgedeploy.runtime.dicom.recode import capture, recode_clip
    from edgedeploy.runtime.pipeline.codecs import codec_of

    if out_file.exists():
        raise SpecError(f"OUT {out_file}", "it exists already", "Choose another path")
    try:
        chosen = codec_of(codec)
    except ValueError as exc:
        raise SpecError("--codec", str(exc)) from None
    asked = f"code {image} by {chosen.name}"
    try:
        if _is_dicom(image):
            found = recode_clip(out_file, open_clip(image), chosen)
        else:
            values, bits = _read(image)
            found = capture(out_file, values, chosen, bits)
    except DicomError as exc:
        raise DataError(asked, str(exc), "Nothing was written; choose another codec, or look at the file") from None
    except ImportError as exc:
        raise TargetUnavailable(asked, str(exc), "pip install 'edgedeploy[codecs,dicom]'") from None
    if as_json:
        print_json({**found._asdict(), "path": str(found.path), "codec": chosen.name})
        return
    lost = "nothing is lost" if not found.largest_error else f"no pixel is off by more than {found.largest_error}"
    by = (
        f"; {' and '.join(found.seconds)} decoded the same"
        if found.seconds
        else "; no second decoder is installed for it"
    )
    text = f"{found.path}: {found.frames} frames, transfer syntax {found.syntax}, {found.ratio:.2f}:1, {lost}{by}"
    out.print(escape(text), highlight=False)


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError as exc:
        raise DataError(str(path), exc.strerror or str(exc), "Check the path") from None


def _read(path: Path) -> tuple[object, int]:
    """The pixels of an image file with their bits."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    from edgedeploy.runtime.pipeline.codecs import bits_of

    try:
        with Image.open(path) as found:
            mode = found.mode
            pages = getattr(found, "n_frames", 1)
            if mode in ("I", "F") or pages > 1:
                raise DataError(
                    str(path), f"mode {mode}, {pages} pages", "Give one page of 8 or 16 bits, which nothing is lost of"
                )
            grey = {"1": "L", "L": "L", "LA": "L", "I;16": "I;16", "I;16L": "I;16", "I;16B": "I;16"}
            values = np.asarray(found.convert(grey.get(mode, "RGB")) if mode not in ("L", "I;16") else found)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as exc:
        raise DataError(str(path), f"no image that is read ({exc})", "Give a DICOM file or an image") from None
    if values.dtype == np.uint16:
        return values, 8 * (1 + (bits_of(values) > 8))
    return values.astype(np.uint8), 8
