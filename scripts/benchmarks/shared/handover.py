"""What a bundle costs a product: bars that `scripts/bench evidence` prints."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.shared.bars import Bar

VERIFY_S: Final = 0.1
FIRST_OUTPUT_S: Final = 1.0
BUNDLE_BYTES: Final = 9_000_000
REPEATS: Final = 5
KILLS: Final = 50
ROLL_BACKS: Final = 12

_FROM_IMPORT = """
import sys, time
started_s = time.perf_counter()
from edgedeploy.runtime import load
model = load(sys.argv[1], trust=sys.argv[2])
import numpy
model(numpy.load(sys.argv[3]))
print(time.perf_counter() - started_s)
"""
_VERIFY = """
import sys, time
from edgedeploy.runtime.bundle.verify import verify
started_s = time.perf_counter()
verify(sys.argv[1], sys.argv[2])
print(time.perf_counter() - started_s)
"""


def handover_bars() -> Iterator[Bar]:
    """On this machine as it is; every run in a process of its own."""
    import numpy as np
    import product_kit

    with tempfile.TemporaryDirectory(prefix="edgedeploy-handover-") as place:
        folder = Path(place)
        key, trust = product_kit.make_key(folder)
        files = product_kit.make_files(network=product_kit.ten_megabytes)
        bundle = product_kit.write_signed(folder / "bundle", files, key)
        size_mb = sum(map(len, files.values())) / 1e6
        assert size_mb * 1e6 > BUNDLE_BYTES
        np.save(folder / "frame.npy", product_kit.frames(1)[0])
        for asked, code, bar_s in (
            (f"verify {size_mb:.1f} MB", _VERIFY, VERIFY_S),
            (f"import to first verified output, {size_mb:.1f} MB", _FROM_IMPORT, FIRST_OUTPUT_S),
        ):
            found_s = [_seconds(code, bundle, trust, folder / "frame.npy") for _ in range(REPEATS)]
            median_s = statistics.median(found_s)
            yield Bar(f"{asked}: below {bar_s} s", f"{median_s:.3f} s, slowest {max(found_s):.3f} s", median_s < bar_s)
    yield activation_bar()


def _seconds(code: str, *arguments: Path) -> float:
    argv = [sys.executable, "-c", code, *map(str, arguments)]
    return float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def activation_bar() -> Bar:
    """The program that the tests of faults run too."""
    import product_kit

    tests = Path(product_kit.__file__).parent
    with tempfile.TemporaryDirectory(prefix="edgedeploy-kills-") as place:
        folder = Path(place)
        key, trust = product_kit.make_key(folder)
        shutil.copy(trust, folder / "trust.pub")
        files = product_kit.make_files()
        for number in range(1, KILLS + 4):
            product_kit.write_signed(folder / f"release-{number}", product_kit.changed(files, release=number), key)
        argv = [sys.executable, str(tests / "faults" / "runtime" / "activation_kills.py"), place]
        done = subprocess.run([*argv, str(KILLS), str(ROLL_BACKS)], capture_output=True, text=True, check=False)
    asked = f"{KILLS} kills of an activation and {ROLL_BACKS} of a roll-back: a working release, no reader sees a mix"
    if done.returncode != 0:
        return Bar(asked, (done.stderr.strip().splitlines() or ["no reason was given"])[-1], False)
    found = json.loads(done.stdout)
    said = f"{found['old']} times the old release, {found['new']} the new one, {found['readings']} readings"
    return Bar(asked, said, found["kills"] == KILLS)
