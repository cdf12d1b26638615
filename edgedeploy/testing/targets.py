"""The contract of every target, tested with its real toolchain and runtime.

A target's package subclasses :class:`TargetContract` in a test module::

    from edgedeploy import Target
    from edgedeploy.testing import TargetContract
    from my_package import MyTarget

    class TestMyTarget(TargetContract):
        def make(self) -> Target:
            return MyTarget()

docs/extend/target.md says the rest.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

from edgedeploy.errors import BuildError, DataError, ParityError, SpecError, TargetUnavailable, Unsupported
from edgedeploy.interfaces.session import pack_session
from edgedeploy.interfaces.target import BuildRequest, Calibrating, HasQuantizers, PerLayer, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.export import reference_outputs
from edgedeploy.reference.parity import check_executed, check_parity
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import sha256_file
from edgedeploy.runtime.sessions.open import Session, open_session
from edgedeploy.targets.registry import GROUP, demands_of, find_targets, quantizers_of
from edgedeploy.testing import models
from edgedeploy.testing.models import IMAGE, Model


class Built(NamedTuple):
    artifact: Artifact
    folder: Path


class TargetContract:
    """Subclass it as ``Test...`` and implement ``make``. Tests run once per precision that the target declares. They
    are skipped with the probe's message when its toolchain is not installed."""

    calibrated_precision: ClassVar[str] = "int8"
    """The precision that needs calibration cases; calibration tests are skipped for a target without it."""

    def make(self) -> Target:
        """The target, as a study would make it."""
        raise NotImplementedError

    def request(self, model: Model, precision: str, calibration: models.Calibration | None = None) -> BuildRequest:
        """What the target builds from."""
        return model.request(precision, calibration)

    def open(self, artifact: Artifact, folder: Path) -> Session:
        """Open the artifact in the session that the target declares."""
        source = self.make().session
        return open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1, source)

    def cannot_run(self, precision: str, executed: Mapping[str, int]) -> str | None:
        """Why this machine cannot run ``precision`` and runs another one; None if running another one is a fault."""
        return None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "precision" in metafunc.fixturenames:
            metafunc.parametrize("precision", self.make().precisions)
        if "quantizer" in metafunc.fixturenames:
            metafunc.parametrize("quantizer", tuple(quantizers_of(self.make()))[1:])

    @pytest.fixture(autouse=True)
    def _needs_the_toolchain(self) -> None:
        readiness = self.make().probe()
        if not readiness.ready:
            pytest.skip(f"{readiness.found} ({readiness.remedy})")

    @pytest.fixture
    def calibrated(self) -> str:
        if self.calibrated_precision not in self.make().precisions:
            pytest.skip(f"{self.make().name} has no {self.calibrated_precision}")
        return self.calibrated_precision

    @pytest.fixture(scope="class")
    @classmethod
    def two_heads(cls, tmp_path_factory: pytest.TempPathFactory) -> Model:
        return models.two_heads(tmp_path_factory.mktemp("two-heads"))

    @pytest.fixture(scope="class")
    @classmethod
    def built(cls, two_heads: Model, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
        """The artifact of a precision: built once for the tests that only look at it."""
        own, shelf = cls(), dict[str, Built]()

        def get(precision: str) -> Built:
            if precision not in shelf:
                folder = tmp_path_factory.mktemp(precision)
                shelf[precision] = Built(own.make().build(own.request(two_heads, precision), folder), folder)
            return shelf[precision]

        return get

    def test_target_keeps_the_protocol(self) -> None:
        assert isinstance(self.make(), Target)

    def test_a_study_finds_the_target_by_its_entry_point(self) -> None:
        """Its class is named in the group ``edgedeploy.targets``, and nothing of its declaration is wrong."""
        name = self.make().name
        plugin = next((plugin for plugin in find_targets() if plugin.name == name), None)
        assert plugin is not None, f"no entry point {name!r} in the group {GROUP!r}: is the package installed?"
        assert type(plugin.load()) is type(self.make())

    def test_declared_precisions_are_known_words_and_demands_are_of_them(self) -> None:
        target = self.make()
        layers = target.layer_precisions if isinstance(target, PerLayer) else ()
        assert "float32" in target.precisions, "the baseline of a study is float32"
        assert len(set(target.precisions)) == len(target.precisions)
        assert set(demands_of(target)) <= {*target.precisions, *layers}

    def test_a_board_runs_the_artifact_without_the_targets_package(
        self, two_heads: Model, built: Callable[[str], Built], tmp_path: Path
    ) -> None:
        """The session is brought to an empty folder as to any board, and computes there what it computes here."""
        from edgedeploy.boards.open import open_board
        from edgedeploy.records.job import Job, MeasurePlan, Payload

        target = self.make()
        sessions = (pack_session(target.name, target.session),)
        board = open_board({"name": "here", "kind": "local", "root": str(tmp_path / "board")}, sessions)
        artifact, folder = built("float32")
        feeds = list(models.images(seed=2, count=2))
        arrays: dict[str, Any] = {IMAGE.name: np.stack([feed[IMAGE.name] for feed in feeds])}
        np.savez(tmp_path / "cases.npz", **arrays)
        with board.session() as session:
            if target.name not in session.info.runtimes:
                pytest.skip(f"this machine as a board has none of {', '.join(target.session.packages)}")
            plan = MeasurePlan(queries=0, cold_starts=0, time_limit_s=120.0)
            raw = session.measure(Job(Payload(artifact, folder, tmp_path / "cases.npz", 1), None, plan), tmp_path)
        assert raw.outputs is not None
        with np.load(raw.outputs) as found:
            outputs = {name: np.concatenate(list(found[name])) for name in found.files}
        expected = _stacked(list(reference_outputs(two_heads.reference, feeds)))
        check_parity(expected, outputs, "float32")

    def test_artifact_computes_what_its_reference_computes(
        self, precision: str, two_heads: Model, built: Callable[[str], Built]
    ) -> None:
        artifact, folder = built(precision)
        session = self.open(artifact, folder)
        distance = check_parity(*compared(two_heads, session, list(models.images(seed=2, count=4))), precision)
        assert list(session.outputs) == ["out0", "out1"]
        if precision != "float32" and not self.cannot_run(precision, session.executed()):
            assert distance["rel_l2"] > 1e-5, "a narrower precision leaves a trace: otherwise float32 was run"

    def test_runtime_runs_the_precision_that_was_asked_for(self, precision: str, built: Callable[[str], Built]) -> None:
        executed = self.open(*built(precision)).executed()
        if reason := self.cannot_run(precision, executed):
            pytest.skip(reason)
        check_executed(precision, executed)

    def test_equal_inputs_give_equal_bits(self, precision: str, built: Callable[[str], Built]) -> None:
        first, second = models.images(seed=5, count=2)
        session = self.open(*built(precision))
        once = session.run(first)
        kept = {name: value.copy() for name, value in once.items()}
        session.run(second)
        again, anew = session.run(first), self.open(*built(precision)).run(first)
        for name, value in kept.items():
            np.testing.assert_array_equal(once[name], value, "the outputs of a run are the caller's own memory")
            np.testing.assert_array_equal(again[name], value)
            np.testing.assert_array_equal(anew[name], value)

    def test_manifest_tells_what_lies_in_the_folder(
        self, precision: str, two_heads: Model, built: Callable[[str], Built]
    ) -> None:
        artifact, folder = built(precision)
        assert {path.name for path in folder.iterdir()} == {file.name for file in artifact.files}
        assert all(sha256_file(folder / file.name) == file.sha256 for file in artifact.files)
        assert (artifact.target, artifact.precision) == (self.make().name, precision)
        assert artifact.reference_sha256 == two_heads.reference.sha256
        assert (artifact.inputs, artifact.outputs) == (two_heads.reference.inputs, two_heads.reference.outputs)
        probed = self.make().probe().versions
        shared = {tool: version for tool, version in artifact.built_with if tool in probed}
        assert shared
        assert shared.items() <= probed.items()
        assert Artifact.from_json(artifact.as_json()) == artifact

    def test_two_builds_are_one_artifact_and_say_nothing(
        self,
        precision: str,
        two_heads: Model,
        built: Callable[[str], Built],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """The progress display of a study owns the terminal."""
        first = built(precision).artifact
        capfd.readouterr()
        assert self.make().build(self.request(two_heads, precision), tmp_path).digest == first.digest
        printed = capfd.readouterr()
        assert printed.out == ""
        assert printed.err == ""

    @pytest.mark.parametrize("kind", ["float", "calibrated"])
    def test_several_inputs_and_outputs_stay_apart(
        self, kind: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        precision = request.getfixturevalue("calibrated") if kind == "calibrated" else "float32"
        model = models.west_and_east(tmp_path / "model")
        artifact = self.make().build(self.request(model, precision), tmp_path / "built")
        session = self.open(artifact, tmp_path / "built")
        feeds = [dict(reversed(feed.items())) for feed in model.calibration()]
        assert set(session.inputs) == {"west", "east"}
        check_parity(*compared(model, session, feeds), precision)

    def test_integer_inputs_and_outputs(self, tmp_path: Path) -> None:
        """Integer inputs (indices) and an integer output (the index of the best) are exact."""
        model = models.token_scores(tmp_path / "model")
        artifact = self.make().build(self.request(model, "float32"), tmp_path / "built")
        expected, found = compared(model, self.open(artifact, tmp_path / "built"), list(model.calibration()))
        check_parity({"out0": expected["out0"]}, {"out0": found["out0"]}, "float32")
        assert found["out1"].dtype.kind in "iu"
        np.testing.assert_array_equal(found["out1"], expected["out1"])

    def test_open_dimensions_are_refused_by_name_or_run(self, precision: str, two_heads: Model, tmp_path: Path) -> None:
        model = models.open_batch(two_heads, tmp_path)
        try:
            artifact = self.make().build(self.request(model, precision), tmp_path / "built")
        except BuildError as exc:
            assert re.search(r"batch|dynamic|static|dimension", str(exc))
            assert left_in(tmp_path / "built") == []
        else:
            feeds = list(models.images(seed=2, count=4))
            check_parity(*compared(two_heads, self.open(artifact, tmp_path / "built"), feeds), precision)

    def test_session_refuses_what_the_model_does_not_take(self, built: Callable[[str], Built]) -> None:
        session = self.open(*built(self.make().precisions[0]))
        with pytest.raises(RuntimeFault) as caught:
            session.run({IMAGE.name: np.zeros((1, 1, 16, 16), np.float32)})
        assert caught.value.cause == "run_failed"

    def test_float_builds_need_no_calibration_cases(self, two_heads: Model, tmp_path: Path) -> None:
        def source() -> Iterator[dict[str, Array]]:
            return iter(())

        self.make().build(self.request(two_heads, "float32", source), tmp_path)

    def test_ranges_follow_the_calibration(
        self, calibrated: str, two_heads: Model, built: Callable[[str], Built], tmp_path: Path
    ) -> None:
        def bright() -> Iterator[dict[str, Array]]:
            return ({IMAGE.name: feed[IMAGE.name] * 50} for feed in models.images())

        fitting = self.make().build(self.request(two_heads, calibrated, bright), tmp_path)
        feeds = list(bright())
        check_parity(*compared(two_heads, self.open(fitting, tmp_path), feeds), calibrated)
        with pytest.raises(ParityError):
            check_parity(*compared(two_heads, self.open(*built(calibrated)), feeds), calibrated)

    def test_each_quantizer_narrows_and_stays_near(
        self, quantizer: str, calibrated: str, two_heads: Model, built: Callable[[str], Built], tmp_path: Path
    ) -> None:
        """Those besides the target's default, which other tests build."""
        asked = replace(self.request(two_heads, calibrated), quantizer=quantizer)
        first = self.make().build(asked, tmp_path / "first")
        session = self.open(first, tmp_path / "first")
        check_executed(calibrated, session.executed())
        check_parity(*compared(two_heads, session, list(models.images(seed=2, count=4))), calibrated)
        assert self.make().build(asked, tmp_path / "again").digest == first.digest
        assert built(calibrated).artifact.digest != first.digest, "it is a choice"

    def test_quantizers_are_declared_with_their_calibrations(self, two_heads: Model, tmp_path: Path) -> None:
        target = self.make()
        if not isinstance(target, HasQuantizers):
            pytest.skip(f"{target.name} has one way to quantize")
        own, *others = target.quantizers
        assert isinstance(target, Calibrating)
        assert target.quantizers[own] == target.calibrations, "the first is the target's own"
        assert all(target.quantizers[name] for name in others), "each names at least its default method"
        precision = self.calibrated_precision
        with pytest.raises(Unsupported, match="quantizer 'guess'"):
            target.build(replace(self.request(two_heads, precision), quantizer="guess"), tmp_path)
        assert left_in(tmp_path) == []

    def test_calibration_is_streamed(self, calibrated: str, two_heads: Model, tmp_path: Path) -> None:
        """Cases are loaded one by one: a case is released before the next one is made."""
        alive: set[int] = set()
        most = 0

        class Tracked(np.ndarray[Any, np.dtype[Any]]):
            def __del__(self) -> None:
                alive.discard(id(self))

        def source() -> Iterator[dict[str, Array]]:
            nonlocal most
            for feed in models.images(count=24):
                image = feed[IMAGE.name].view(Tracked)
                alive.add(id(image))
                most = max(most, len(alive))
                yield {IMAGE.name: image}
                del image

        self.make().build(self.request(two_heads, calibrated, source), tmp_path)
        assert 0 < most <= 3

    @pytest.mark.parametrize(
        ("cases", "told"),
        [
            ([], "the task has none"),
            ([{"picture": np.zeros((1, 1, 32, 32), np.float32)}], "picture"),
            ([{"image": np.zeros((1, 1, 16, 16), np.float32)}], r"\(1, 1, 16, 16\)"),
            ([{"image": np.zeros((1, 1, 32, 32), np.float64)}], "float64"),
            ([{"image": np.full((1, 1, 32, 32), np.nan, np.float32)}], "NaN"),
        ],
        ids=["none", "name", "shape", "type", "nan"],
    )
    def test_bad_calibration_is_named_and_leaves_nothing(
        self, calibrated: str, cases: list[dict[str, Array]], told: str, two_heads: Model, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError, match=told):
            self.make().build(self.request(two_heads, calibrated, lambda: iter(cases)), tmp_path)
        assert left_in(tmp_path) == []

    def test_task_errors_in_calibration_stay_what_they_are(
        self, calibrated: str, two_heads: Model, tmp_path: Path
    ) -> None:
        """A failure to read the data is raised unchanged: it says nothing about the variant."""

        def source() -> Iterator[dict[str, Array]]:
            yield from models.images(count=2)
            raise SpecError("a case", "the disk is gone")

        with pytest.raises(SpecError, match="the disk is gone"):
            self.make().build(self.request(two_heads, calibrated, source), tmp_path)
        assert left_in(tmp_path) == []

    def test_an_operator_the_target_lacks_is_named_with_its_node(self, precision: str, tmp_path: Path) -> None:
        model = models.one_operator(tmp_path / "model", "HoneycombPool", lambda image: image + 0, domain="com.example")
        with pytest.raises(Unsupported, match="HoneycombPool") as caught:
            self.make().build(self.request(model, precision), tmp_path / "built")
        assert "the_node" in str(caught.value)
        assert left_in(tmp_path / "built") == []

    def test_numbers_that_are_none_are_refused(self, tmp_path: Path) -> None:
        """The model takes the logarithm of a random input, half of which is negative."""
        model = models.one_operator(tmp_path / "model", "Log", lambda image: image.log())
        with pytest.raises(Unsupported, match="NaN or Inf"):
            self.make().build(self.request(model, "float32"), tmp_path / "built")
        assert left_in(tmp_path / "built") == []

    def test_calibration_without_anything_to_quantize_is_refused(self, calibrated: str, tmp_path: Path) -> None:
        model = models.one_operator(tmp_path / "model", "Softplus", _softplus)
        with pytest.raises(Unsupported, match=f"{calibrated} layers"):
            self.make().build(self.request(model, calibrated), tmp_path / "built")
        assert left_in(tmp_path / "built") == []

    def test_broken_file_is_refused(self, two_heads: Model, tmp_path: Path) -> None:
        whole = self.request(two_heads, "float32")
        broken = tmp_path / "model.onnx"
        broken.write_bytes(whole.reference.read_bytes()[:400])
        with pytest.raises((BuildError, DataError), match=r"model\.onnx"):
            self.make().build(type(whole)(**{**vars(whole), "reference": broken}), tmp_path / "built")
        assert left_in(tmp_path / "built") == []

    def test_precision_that_a_target_lacks_names_those_it_has(self, two_heads: Model, tmp_path: Path) -> None:
        with pytest.raises(Unsupported, match=self.make().precisions[0]):
            self.make().build(self.request(two_heads, "float8"), tmp_path)

    def test_folder_in_use_is_left_alone(self, two_heads: Model, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
        with pytest.raises(BuildError, match=r"notes\.txt"):
            self.make().build(self.request(two_heads, "float32"), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_missing_toolchain_names_what_to_install(
        self, two_heads: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The interpreter's package metadata lacks the packages. Probe and build must give the same remedy; a target of
        edgedeploy itself must name the extra that brings its toolchain."""

        def version(package: str) -> str:
            raise importlib.metadata.PackageNotFoundError(package)

        monkeypatch.setattr(importlib.metadata, "version", version)
        readiness = self.make().probe()
        assert not readiness.ready
        assert readiness.found
        assert f"[{self.make().extra}]" in readiness.remedy if self.make().extra else "install" in readiness.remedy
        with pytest.raises(TargetUnavailable, match=re.escape(readiness.remedy)):
            self.make().build(self.request(two_heads, "float32"), tmp_path)


def left_in(folder: Path) -> list[str]:
    """Files that a failed build left in ``folder``, which may or may not exist."""
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def compared(
    model: Model, session: Session, feeds: list[dict[str, Array]]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Outputs of the reference and of the session over all feeds, stacked."""
    expected = list(reference_outputs(model.reference, feeds))
    found = [session.run(feed) for feed in feeds]
    return _stacked(expected), _stacked(found)


def _stacked(rows: list[dict[str, Any]]) -> dict[str, Array]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _softplus(image: Any) -> Any:
    import torch

    return torch.nn.functional.softplus(image)
