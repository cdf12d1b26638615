"""Options of the commands for one model: what is built of it, for what, and on what it is tried."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgedeploy.cli.options import complete_board, complete_target

FloatModel = Annotated[Path | None, typer.Argument(help="Float model, an .onnx file; or --task.", show_default=False)]
ModelOrArtifact = Annotated[
    Path, typer.Argument(help="An .onnx file, or a folder from quantize or export.", show_default=False)
]
BuildFor = Annotated[
    list[str],
    typer.Option(
        "--target",
        help="What to build for, one of `edgedeploy targets`.",
        show_default=False,
        autocompletion=complete_target,
    ),
]
Calibration = Annotated[
    Path | None, typer.Option(help="Folder of images, .npy or .npz files, or one such file.", show_default=False)
]
Calibrator = Annotated[
    str, typer.Option(help="How ranges are chosen: minmax, percentile, entropy, mse (the target's own).")
]
Quantizer = Annotated[
    str, typer.Option(help="Which tool makes int8: nncf, nncf-minmax, onnxruntime (the target's own).")
]
WeightBits = Annotated[
    int, typer.Option(help="Bits of int8 weights, 7 or 8 (the board chooses where it matters).", show_default=False)
]
TriedOn = Annotated[
    str,
    typer.Option(
        "--board",
        help="Where to run it once: local, user@host, emulated:arm64, or none.",
        autocompletion=complete_board,
    ),
]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Trained weights of the task's model: .pt, .safetensors.", show_default=False)
]
CheckpointKey = Annotated[
    str, typer.Option(help="Where in the checkpoint the weights are, if that has to be said.", show_default=False)
]
Inputs = Annotated[
    Path | None,
    typer.Option(help="Images, .npy or .npz files to run on (seeded random inputs).", show_default=False),
]
Threads = Annotated[
    int, typer.Option(min=0, max=256, help="Threads (the board's cores, at most 4).", show_default=False)
]
Queries = Annotated[
    int | None,
    typer.Option(min=8, help="Timed inferences; 662 and more give a 99th percentile.", show_default=False),
]
