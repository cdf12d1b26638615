"""Low-dose CT: made-up bodies and their scans, real pairs in HU, metrics within a window, and a network."""

from __future__ import annotations

import errno
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ct_kit
import numpy as np
import pytest
import torch

from edgedeploy import Grouped, Pictured, Piped, Task, Trainable
from edgedeploy.compress.prune import channel_widths, prune
from edgedeploy.compress.student import student_of
from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import SPLITS, Teaching
from edgedeploy.tasks.load import load_task
from edgedeploy.tasks.lowdose.making import Making, cache_folder, made_pairs
from edgedeploy.tasks.lowdose.network import build_denoiser
from edgedeploy.tasks.lowdose.phantoms import phantom
from edgedeploy.tasks.lowdose.scan import WATER_PER_MM, Scanner, noisy, projected, reconstructed, scanned
from edgedeploy.tasks.lowdose.task import HU_12_BITS, LowDoseCt

ARCH = {"resolution": 32, "blocks": 1}


def load(root: Path, **options: Any) -> LowDoseCt:
    table = {"root": str(root), "resolutions": [32], "base_channels": 4, "depth": 1, "blocks": [1], **options}
    task = load_task({"kind": "low-dose-ct", "options": table}, root.parent)
    assert isinstance(task, LowDoseCt)
    return task


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ct_kit.hu_pairs(tmp_path_factory.mktemp("pairs"))


def unit(hu: Any) -> Any:
    """HU as the network has them."""
    low, high = HU_12_BITS
    return ((np.asarray(hu, np.float64) - low) / (high - low)).astype(np.float32)


def test_real_pairs_are_read_in_hu_and_scored(pairs: Path) -> None:
    task = load(pairs, groups="groups.csv")
    for protocol in (Task, Trainable, Grouped, Pictured, Piped):
        assert isinstance(task, protocol)
    assert task.name == "low-dose-ct"
    assert task.groups_known
    assert sum(len(task.cases(split)) for split in SPLITS) == 24
    case = task.cases("selection")[0]
    image = task.inputs(case, **ARCH)["image"]
    assert image.shape == (1, 1, 32, 32)
    number = int(Path(case.id).stem)
    np.testing.assert_allclose(image[0, 0], unit(ct_kit.low_hu(number)), atol=2e-6)
    found = task.evaluate({"y": image}, case)
    assert set(found) == set(task.metrics)
    low, truth = (np.clip(hu, -160, 240) for hu in (ct_kit.low_hu(number), phantom(32, number)))
    assert found["rmse_hu"] == pytest.approx(float(np.sqrt(np.mean((low - truth) ** 2))), rel=1e-3)


def grey(folder: Path, low: tuple[int, int], normal: tuple[int, int], offset: float) -> Path:
    """14 pairs of noise about ``offset``, of these sizes (H, W)."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, size in (("low", low), ("normal", normal)):
        (folder / name).mkdir()
        for number in range(14):
            values = rng.normal(offset, 60, size).astype(np.float32)
            Image.fromarray(values).save(folder / name / f"{number:02d}.tif")
    return folder


def test_pairs_that_no_window_shows_are_refused(tmp_path: Path) -> None:
    """All values lie beyond the window: both slices are white, and every answer would be perfect."""
    with pytest.raises(DataError, match=r"differ by 0 HU at most within -160 to 240. Are the files' values HU"):
        load(grey(tmp_path, (32, 32), (32, 32), 32768.0))
    task = load(tmp_path, value_range=[32000.0, 34000.0], window_hu=[32608.0, 33008.0])
    case = task.cases("selection")[0]
    found = task.evaluate({"out0": task.inputs(case, **ARCH)["image"]}, case)
    assert found["psnr_db"] is not None and found["psnr_db"] < 20


def test_slices_of_a_pair_have_the_same_pixels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.tif: it is 32x32, and its target 24x40"):
        load(grey(tmp_path, (32, 32), (40, 24), 0.0))


def test_metrics_within_the_window_by_hand(pairs: Path) -> None:
    task = load(pairs)
    truth = np.full((1, 32, 32), 40.0)
    found = task.scores(unit(truth + 20), unit(truth))
    assert found["rmse_hu"] == pytest.approx(20, rel=1e-3)
    assert found["psnr_db"] == pytest.approx(20 * math.log10(400 / 20), rel=1e-3)
    beyond = task.scores(unit(truth + 900), unit(truth + 700))
    assert (beyond["psnr_db"], beyond["rmse_hu"]) == (100.0, 0.0), "both are white"
    wider = load(pairs, window_hu=[-1000, 1000])
    assert wider.scores(unit(truth + 20), unit(truth))["psnr_db"] == pytest.approx(40, rel=1e-3)


def test_the_picture_shows_the_window(pairs: Path) -> None:
    task = load(pairs)
    case = task.cases("selection")[0]
    shown = task.picture(case, None)
    assert shown.shape == (32, 64, 3)
    truth = phantom(32, int(Path(case.id).stem))
    assert (shown[:, 32:, 0][truth < -170] == 0).all()
    assert (shown[:, 32:, 0][truth > 250] == 255).all()


def test_ssim_is_scikit_image_s(pairs: Path) -> None:
    """Within the border of half a window, which MONAI leaves out."""
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed: pip install edgedeploy[ct]")
    one, other = phantom(64, 1), phantom(64, 1) + np.random.default_rng(0).normal(0, 30, (64, 64))
    seen = [np.clip((hu + 160) / 400, 0, 1) for hu in (one, other)]
    _, full = metrics.structural_similarity(
        *seen, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    found = load(pairs).scores(unit(other)[None], unit(one)[None])["ssim"]
    assert found == pytest.approx(full[5:-5, 5:-5].mean(), abs=2e-3)


def test_a_body_is_decided_by_its_seed_and_lies_within_the_scan() -> None:
    one = phantom(64, 3)
    assert (one == phantom(64, 3)).all()
    assert (one != phantom(64, 4)).any()
    y, x = (np.indices((64, 64)) + 0.5) * 2 / 64 - 1
    assert (one[x * x + y * y > 1] == -1000).all()
    assert one.min() >= -1000
    assert 400 < one.max() < 1300
    tissue = np.concatenate([phantom(64, seed).ravel() for seed in range(20)])
    assert 0.15 < float(np.mean((tissue > -160) & (tissue < 240))) < 0.7


def test_a_scan_of_water_is_water() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install edgedeploy[ct]")
    y, x = (np.indices((64, 64)) + 0.5) * 2 / 64 - 1
    water = np.where(x * x + y * y < 0.6**2, 0.0, -1000.0).astype(np.float32)
    scanner = Scanner(photons=1e5, field_mm=200.0)
    integrals = projected(water, scanner)
    assert integrals.max(axis=0).mean() == pytest.approx(0.6 * 200 * WATER_PER_MM, rel=0.02), "through the middle"
    middle = reconstructed(integrals, 64, scanner)[24:40, 24:40]
    assert abs(float(middle.mean())) < 15
    assert float(reconstructed(integrals, 64, scanner)[:8].max()) < -900


def test_noise_is_that_of_the_photons() -> None:
    """var(-ln N) is 1 / N of many photons (the delta method)."""
    integrals = np.full((400, 50), 2.0)
    for photons in (1e4, 1e6):
        spread = noisy(integrals, photons, 0).std()
        assert spread == pytest.approx(1 / math.sqrt(photons * math.exp(-2.0)), rel=0.05)
    assert np.isfinite(noisy(np.full((4, 4), 50.0), 10, 0)).all(), "no photon arrives"


def test_fewer_photons_are_worse() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install edgedeploy[ct]")
    body = phantom(48, 0)
    errors = []
    for photons in (3e3, 1e4, 1e6):
        low, normal = scanned(body, Scanner(photons), seed=1)
        errors.append(float(np.sqrt(np.mean((low - normal)[16:32, 16:32] ** 2))))
    assert errors[0] > 1.3 * errors[1] > 8 * errors[2]


def test_pairs_are_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install edgedeploy[ct]")
    making = Making(cases=12, side=16, photons=1e4, field_mm=400.0, seed=0)
    folder = made_pairs(making, tmp_path)
    files = {path: path.read_bytes() for path in folder.rglob("*.tif")}
    assert len(files) == 24
    times = {path: path.stat().st_mtime_ns for path in files}
    assert made_pairs(making, tmp_path) == folder
    assert times == {path: path.stat().st_mtime_ns for path in files}
    again = made_pairs(making, tmp_path / "other")
    assert {path.relative_to(folder): data for path, data in files.items()} == {
        path.relative_to(again): path.read_bytes() for path in again.rglob("*.tif")
    }
    more = made_pairs(replace(making, cases=13), tmp_path)
    assert (more / "low" / "0003.tif").read_bytes() == files[folder / "low" / "0003.tif"]
    monkeypatch.setattr("edgedeploy.tasks.lowdose.making.scanned", _full_disk)
    with pytest.raises(SpecError, match="No space left"):
        made_pairs(replace(making, seed=1), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, more.name, "other"}
    with pytest.raises(SpecError, match="EDGEDEPLOY_CACHE"):
        made_pairs(making, folder / "groups.csv" / "cache")


def _full_disk(*given: Any) -> Any:
    raise OSError(errno.ENOSPC, "no space")


def test_without_a_folder_bodies_are_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install edgedeploy[ct]")
    monkeypatch.setenv("EDGEDEPLOY_CACHE", str(tmp_path))
    task = load_task({"kind": "low-dose-ct", "options": {"resolutions": [16], "bodies": 12}}, tmp_path)
    assert isinstance(task, LowDoseCt)
    assert task.root.parent == cache_folder() == tmp_path / "low-dose-ct"
    assert task.groups_known
    case = task.cases("selection")[0]
    found = task.evaluate({"y": task.inputs(case, resolution=16, blocks=2)["image"]}, case)
    assert found["rmse_hu"] is not None and 1 < found["rmse_hu"] < 100


def test_without_scikit_image_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDEPLOY_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.transform", None)
    with pytest.raises(SpecError, match=r"edgedeploy\[ct\]"):
        load_task({"kind": "low-dose-ct", "options": {"resolutions": [16], "bodies": 12}}, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value_range": "window"}, "two HU"),
        ({"window_hu": [-2000, 240]}, "within value_range"),
        ({"window_hu": [240, -160]}, "two rising HU"),
        ({"colour": "rgb"}, 'colour is "grey"'),
        ({"residual": False}, "residual is true"),
        ({"blocks": [0]}, "at least 1"),
        ({"photons": 0.0}, "photons are 1 to"),
        ({"bodies": 3}, "bodies must be at least 12"),
        ({"resolutions": [33]}, "multiples of 2"),
    ],
)
def test_options_that_are_wrong(pairs: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(pairs, **options)


def test_the_network_starts_from_its_input_and_gets_narrower() -> None:
    network = build_denoiser(channels=1, base=8, depth=2, blocks=2, seed=0).eval()
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(network(image), image)
    torch.nn.init.normal_(network.head.weight)
    narrow = prune(network, (image,), 0.5)
    before, after = channel_widths(network), channel_widths(narrow)
    assert after["head"] == 1
    assert all(after[name] == before[name] // 2 for name in before if name != "head")
    assert narrow(image).shape == image.shape
    assert not torch.equal(narrow(image), image)


def conv_sides(network: Any, image: Any) -> list[int]:
    """The side of what each convolution gives."""
    seen: list[int] = []
    for layer in (module for module in network.modules() if isinstance(module, torch.nn.Conv2d)):
        layer.register_forward_hook(lambda module, given, found: seen.append(found.shape[-1]))
    network(image)
    return seen


def test_layers_see_the_window_as_one(pairs: Path) -> None:
    network = load(pairs, window_hu=[0, 400]).build(**ARCH).eval()
    seen: list[Any] = []
    network.stem.register_forward_hook(lambda module, given, found: seen.append(given[0]))
    network(torch.from_numpy(unit(np.full((1, 1, 32, 32), 400.0))) - torch.from_numpy(unit(np.zeros((1, 1, 32, 32)))))
    assert float(seen[0].mean()) == pytest.approx(1.0, rel=1e-4)
    older = {name: value for name, value in network.state_dict().items() if name != "gain"}
    with pytest.raises(RuntimeError, match="gain"):
        network.load_state_dict(older)


def test_students_fold_the_image_and_start_from_it(pairs: Path) -> None:
    task = load(pairs, base_channels=4)
    assert isinstance(task, Teaching)
    assert set(task.students) == {"folded-4", "folded-6", "folded-8"}
    image = torch.rand(1, 1, 32, 32)
    for name, channels in (("folded-4", 4), ("folded-6", 6), ("folded-8", 8)):
        network = student_of(task, name, ARCH).eval()
        assert torch.equal(network(image), image)
        assert network.stem.weight.shape == (channels, 4, 3, 3), "the four pixels of a square are its channels"
        torch.nn.init.normal_(network.head.weight)
        assert network(image).shape == image.shape
        assert set(conv_sides(network, image)) == {16}, "no convolution has full resolution"


def test_a_network_of_the_user_s_own_has_no_student(pairs: Path) -> None:
    (pairs.parent / "net.py").write_text(
        "import torch\n\n\ndef make(in_channels):\n    return torch.nn.Conv2d(in_channels, 1, 3, padding=1)\n"
    )
    assert load(pairs, network="net.py:make").students == {}
