"""What every target's bundle has to do on a device: load, answer as its artifact does, and be refused where it must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import product_kit as kit
import pytest

from edgedeploy.interfaces.target import Target
from edgedeploy.records.artifact import Artifact
from edgedeploy.runtime import load
from edgedeploy.runtime.bundle import manifest as m
from edgedeploy.runtime.faults import BundleError
from edgedeploy.runtime.pipeline.run import finish, prepare
from edgedeploy.runtime.pipeline.steps import read_steps
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.testing import models

pytestmark = [pytest.mark.beside, pytest.mark.usefixtures("warm_converter")]


class BundleContract:
    """Of int8 files: kernels of whole numbers, and inputs and outputs that stay float for the product."""

    target: Callable[[], Target]

    @pytest.fixture(scope="class")
    def built(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
        target = type(self).target()
        if not (readiness := target.probe()).ready:
            pytest.skip(f"{readiness.found} ({readiness.remedy})")
        place = tmp_path_factory.mktemp("built")
        return target.build(models.two_heads(place / "model").request("int8"), place / "artifact"), place / "artifact"

    @pytest.fixture(scope="class")
    def files(self, built: tuple[Artifact, Path]) -> dict[str, bytes]:
        return kit.files_of(*built)

    def test_it_loads_and_answers_as_its_artifact_does(
        self, built: tuple[Artifact, Path], files: dict[str, bytes], tmp_path: Path
    ) -> None:
        artifact, folder = built
        key, trust = kit.make_key(tmp_path)
        model = load(kit.write_signed(tmp_path / "bundle", files, key), trust=trust)
        assert model.proof.cases == 2 and set(model.proof.relative_l2) == {spec.name for spec in artifact.outputs}
        assert f"({artifact.target} " in model.device
        session = open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)
        steps = read_steps(kit.GREY_STEPS.input, kit.GREY_STEPS.output)
        for frame in kit.frames(3, seed=9):
            inputs, placement = prepare(steps, frame)
            assert np.array_equal(model(frame), finish(steps, session.run(inputs), placement))

    def test_another_network_under_its_name_does_not_pass_its_golden_vectors(
        self, files: dict[str, bytes], tmp_path: Path
    ) -> None:
        """The device's kernels are proved by what they compute: here the artifact is another one of the same form."""
        target = type(self).target()
        other = target.build(models.two_heads(tmp_path / "model", seed=1).request("int8"), tmp_path / "artifact")
        exchanged = {f"artifact/{item.name}": (tmp_path / "artifact" / item.name).read_bytes() for item in other.files}
        manifest = m.parse(files[m.MANIFEST])
        opened = replace(manifest.artifact.session, settings=dict(other.settings))
        made = kit.with_manifest(
            {**files, **exchanged}, replace(manifest, artifact=replace(manifest.artifact, session=opened))
        )
        with pytest.raises(BundleError) as caught:
            load(kit.write_files(tmp_path / "bundle", made), trust=None)
        assert caught.value.reason == "wrong_answer"

    def test_a_file_that_its_runtime_does_not_open_is_refused(self, files: dict[str, bytes], tmp_path: Path) -> None:
        entry = f"artifact/{m.parse(files[m.MANIFEST]).artifact.session.entry}"
        cut = kit.with_manifest({**files, entry: files[entry][: len(files[entry]) // 2]}, m.parse(files[m.MANIFEST]))
        with pytest.raises(BundleError) as caught:
            load(kit.write_files(tmp_path / "bundle", cut), trust=None)
        assert caught.value.reason == "incompatible"

    def test_a_runtime_of_another_release_is_told_beforehand(self, files: dict[str, bytes], tmp_path: Path) -> None:
        wanted = m.parse(files[m.MANIFEST]).compatibility
        later = replace(wanted, runtime=replace(wanted.runtime, at_least="9999"))
        folder = kit.write_files(tmp_path / "bundle", kit.changed(files, compatibility=later))
        with pytest.raises(BundleError, match=f"incompatible: it runs on {wanted.runtime.package} >=9999") as caught:
            load(folder, trust=None)
        assert f"pip install '{wanted.runtime.package}>=9999'" in caught.value.remedy


class TestOnnxRuntime(BundleContract):
    target = OnnxRuntimeTarget


class TestOpenVino(BundleContract):
    target = OpenVinoTarget


class TestLiteRt(BundleContract):
    target = LiteRtTarget
