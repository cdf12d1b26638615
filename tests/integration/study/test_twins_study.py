"""A search over shares that leave the same networks trains and measures each network once."""

from __future__ import annotations

import shutil
from pathlib import Path

import mixed_blocks
import pytest
import small_transformers
from made_up_study import measure_table

import edgedeploy
from edgedeploy.study.events import read_events
from edgedeploy.study.store import Store

pytestmark = [pytest.mark.beside, pytest.mark.slow]

STUDY = """
[study]
name = "blobs"
targets = ["onnxruntime"]

[task]
kind = "python"
object = "mixed_blocks.py:MixerTask"
options = { cases = 64 }

[[boards]]
name = "here"
kind = "local"

[recovery]
elastic_epochs = 2

[space]
depth = [1.0, 0.5, 0.6]
width = [1.0, 0.5, 0.502]
allocation = ["bytes"]

[[objectives]]
metric = "size_bytes"

[[objectives]]
metric = "right"

[budget]
trials = 20
recovered_baseline = false

""" + measure_table(warmup=2)


def test_each_network_is_measured_once_and_the_log_says_of_which_the_others_are(tmp_path: Path) -> None:
    for module in (mixed_blocks, small_transformers):
        shutil.copy(module.__file__, tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    options = edgedeploy.RunOptions(out=tmp_path / "out", board="here", confirm=False)
    edgedeploy.load_study(tmp_path / "study.toml").run(options).report()
    found = [item.variant for item in Store(tmp_path / "out").measurements()]
    assert len({(variant.width < 1.0, variant.shrink.depth < 1.0) for variant in found}) == len(found) == 4
    told = [str(item.get("text", "")) for item in read_events(tmp_path / "out")]
    (said,) = (line for line in told if "is left to try" in line)
    assert "5 variants are left out" in said
    assert "because its network is that of width 0.5" in said and " by bytes" in said and "depth 0." in said
