"""A bundle on a board over SSH: loaded there by the agent's own files, refused there, and answers that cannot be."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import product_kit
import pytest
import simulated_tensorrt

from edgedeploy.boards.agent import answers
from edgedeploy.boards.emulated.board import serve
from edgedeploy.errors import BundleError, CommandFailed
from edgedeploy.runtime.bundle import manifest as m
from edgedeploy.spec.boards import BoardTable
from edgedeploy.study.bundle.on_board import load_on_board

pytestmark = pytest.mark.beside


def test_a_bundle_is_loaded_and_refused_there(tmp_path: Path) -> None:
    key, trust = product_kit.make_key(tmp_path)
    files = product_kit.make_files()
    bundle = product_kit.write_signed(tmp_path / "bundle", files, key)
    wanted = m.parse(files[m.MANIFEST]).compatibility
    elsewhere = product_kit.changed(files, compatibility=replace(wanted, cpu_flags=("not_of_this_cpu",)))
    with serve("embedded") as target:
        table = BoardTable.model_validate(
            {
                "name": "cart",
                "kind": "ssh",
                "host": target.host,
                "port": target.port,
                "user": target.user,
                "identity": target.identity,
                "known_hosts": target.known_hosts,
                "python": sys.executable,
                "root": str(tmp_path / "root"),
            }
        )
        loaded = load_on_board(bundle, trust, table)
        assert loaded.proof.cases == 2 and "onnxruntime" in loaded.device
        assert load_on_board(bundle, None, table) == loaded
        with pytest.raises(BundleError, match=r"incompatible: .*not_of_this_cpu"):
            load_on_board(product_kit.write_signed(tmp_path / "other", elsewhere, key), trust, table)


def test_a_recipe_for_tensorrt_is_built_there_and_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT and its GPU are SIMULATED; what the bundle holds is the recipe, and the device builds the engine once."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine: apt-get install gcc")
    monkeypatch.setenv("EDGEDEPLOY_CACHE", str(tmp_path / "cache"))
    python = simulated_tensorrt.install(tmp_path / "jetson", "10.3.0", compiler)
    files = product_kit.make_files()
    manifest = m.parse(files[m.MANIFEST])
    session = replace(manifest.artifact.session, settings={"precisions": "float32"})
    recipe = product_kit.changed(
        files,
        target="tensorrt",
        artifact=replace(manifest.artifact, kind="recipe", session=session),
        compatibility=replace(manifest.compatibility, runtime=m.RuntimeRange("tensorrt", "10.0", "11", "10.3.0")),
    )
    key, trust = product_kit.make_key(tmp_path)
    bundle = product_kit.write_signed(tmp_path / "bundle", recipe, key)
    table = BoardTable.model_validate(
        {"name": "jetson", "kind": "local", "python": str(python), "root": str(tmp_path / "root")}
    )
    for _ in range(2):
        loaded = load_on_board(bundle, trust, table)
        assert loaded.device == f"{simulated_tensorrt.GPU} (tensorrt 10.3.0)" and loaded.proof.cases == 2
    assert len(simulated_tensorrt.builds(tmp_path / "jetson")) == 1
    newer = replace(manifest.compatibility, runtime=m.RuntimeRange("tensorrt", "10.5", None, "10.5.0"))
    other = product_kit.write_signed(tmp_path / "other", product_kit.changed(recipe, compatibility=newer), key)
    with pytest.raises(BundleError, match=r"incompatible: .*10\.3\.0 is installed here"):
        load_on_board(other, trust, table)


READY = {
    "ready": "net",
    "release": 1,
    "identity": "a" * 64,
    "device": "CPU",
    "proof": {"cases": 2, "relative_l2": {"out": 0.0}, "share_differing": None},
}


@pytest.mark.parametrize(
    "change",
    [
        {"release": "1"},
        {"proof": {"cases": 0, "relative_l2": {}, "share_differing": None}},
        {"proof": {"cases": 2, "relative_l2": {"out": -1.0}, "share_differing": None}},
        {"proof": {"cases": 2, "relative_l2": {"out": float("nan")}, "share_differing": None}},
        {"proof": None},
    ],
)
def test_an_answer_that_cannot_be_is_the_boards_failure(change: dict[str, Any]) -> None:
    assert answers.loaded("load", READY).proof.cases == 2
    with pytest.raises(CommandFailed, match="cannot be"):
        answers.loaded("load", {**READY, **change})
