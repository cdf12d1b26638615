"""A bundle in a product: how soon it answers, and what kills of an activation leave. Every run is a process of its own."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks import ROOT
from benchmarks.evidence_kit.asked import Asked
from benchmarks.shared.rows import Row

sys.path.append(str(ROOT / "tests"))  # product_kit

FIRST_OUTPUT_BAR_S: Final = 1.0
FIRST_OUTPUT_BYTES: Final = 9_000_000
FIRST_OUTPUT_REPEATS: Final = 5
KILLS: Final = 50
ROLL_BACKS: Final = 12

_FROM_IMPORT: Final = """
import sys, time
started_s = time.perf_counter()
from edgedeploy.runtime import load
model = load(sys.argv[1], trust=sys.argv[2])
import numpy
model(numpy.load(sys.argv[3]))
print(time.perf_counter() - started_s)
"""


def first_output(asked: Asked) -> Row:
    """From `from edgedeploy.runtime import load` to the result of a first frame: verification, golden vectors and all."""
    import numpy as np
    import product_kit

    with tempfile.TemporaryDirectory(prefix="edgedeploy-product-") as place:
        folder = Path(place)
        key, trust = product_kit.make_key(folder)
        files = product_kit.make_files(network=product_kit.ten_megabytes)
        size_bytes = sum(map(len, files.values()))
        assert size_bytes > FIRST_OUTPUT_BYTES
        bundle = product_kit.write_signed(folder / "bundle", files, key)
        np.save(folder / "frame.npy", product_kit.frames(1)[0])
        argv = [sys.executable, "-c", _FROM_IMPORT, str(bundle), str(trust), str(folder / "frame.npy")]
        found_s = [float(subprocess.check_output(argv)) for _ in range(FIRST_OUTPUT_REPEATS)]
    median_s = statistics.median(found_s)
    what = f"import to first verified output, {size_bytes / 1e6:.1f} MB (ONNX Runtime)"
    found = f"{median_s:.2f} s, slowest of {FIRST_OUTPUT_REPEATS} {max(found_s):.2f} s"
    return Row(what, found, f"below {FIRST_OUTPUT_BAR_S:g} s", median_s < FIRST_OUTPUT_BAR_S)


def activation_kills(asked: Asked) -> Row:
    """The program that the tests of faults run: SIGKILL before each kind of change to the disk, two readers beside."""
    import product_kit

    with tempfile.TemporaryDirectory(prefix="edgedeploy-kills-") as place:
        folder = Path(place)
        key, trust = product_kit.make_key(folder)
        shutil.copy(trust, folder / "trust.pub")
        files = product_kit.make_files()
        for number in range(1, KILLS + 4):
            product_kit.write_signed(folder / f"release-{number}", product_kit.changed(files, release=number), key)
        argv = [sys.executable, str(ROOT / "tests" / "faults" / "runtime" / "activation_kills.py"), place]
        done = subprocess.run([*argv, str(KILLS), str(ROLL_BACKS)], capture_output=True, text=True, check=False)
    what = f"{KILLS} kills of activations, {ROLL_BACKS} of roll-backs, two readers beside"
    bar = "a working release after each, no reader sees a mix"
    if done.returncode != 0:
        return Row(what, (done.stderr.strip().splitlines() or ["no reason was given"])[-1], bar, False)
    told = json.loads(done.stdout)
    found = f"{told['old']} left the old release, {told['new']} the new one; {told['readings']} readings, all whole"
    return Row(what, found, bar, told["kills"] == KILLS)


ROWS = (first_output, activation_kills)
