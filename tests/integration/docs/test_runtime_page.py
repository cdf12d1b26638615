"""The blocks of the page for integrators run from top to bottom, as one program beside a signed bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import product_kit as kit
import pytest
from docs_kit import REPO, read_page

pytestmark = pytest.mark.beside

HANDS = """
import numpy, subprocess
shown = []
camera = lambda: numpy.load("frame.npy")
show = lambda result, age_ns: shown.append(result.shape)
"""
"""What a product has besides: a source and a screen."""


def test_the_page_for_integrators_runs(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    key, trust = kit.make_key(tmp_path)
    shutil.copy(trust, tmp_path / "lab.pem.pub")
    shutil.copy(kit.make_key(other)[1], tmp_path / "other.pub")
    kit.write_signed(tmp_path / "bundle", kit.make_files(), key)
    np.save(tmp_path / "frame.npy", kit.frames(1)[0])
    page = read_page(REPO / "docs" / "guide" / "runtime.md")
    blocks = [block for block in page.blocks if str(block.not_run).startswith("it begins with a signed bundle")]
    program = [HANDS]
    for block in blocks:
        run = f"subprocess.run(['bash', '-euc', {block.text!r}], check=True)"
        program.append(block.text if block.language == "python" else run)
    program.append("assert shown and set(shown) == {camera().shape}")
    python = tmp_path / "programs" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH", "")])),
    }
    done = subprocess.run(
        [str(python), "-c", "\n".join(program)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(blocks) == 5 and "untrusted" in done.stdout and "StreamSummary(policy='latest'" in done.stdout
    assert (tmp_path / "results" / "frame.npy").is_file() and (tmp_path / "models" / "current").is_symlink()
