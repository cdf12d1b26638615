"""Which machines a bundle is refused on, in which words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgedeploy.runtime.bundle.compatibility import Here, check, look, version_key
from edgedeploy.runtime.bundle.manifest import Compatibility, RuntimeRange
from edgedeploy.runtime.faults import BundleError

WANTED = Compatibility(RuntimeRange("onnxruntime", "1.23", "2", "1.32.0"), "x86_64", ("avx2", "fma"), None, None)
HERE = Here("x86_64", frozenset({"avx2", "fma", "sse4_1"}), "1.32.0")


def refusal(wanted: Compatibility, here: Here) -> BundleError:
    with pytest.raises(BundleError) as caught:
        check(wanted, here)
    assert caught.value.reason == "incompatible"
    return caught.value


def test_a_machine_that_has_more_is_taken() -> None:
    check(WANTED, HERE)
    check(WANTED, replace(HERE, installed="1.23.0"))
    check(WANTED, replace(HERE, installed="1.99.9+cpu"))
    check(replace(WANTED, gpu="Orin", driver="R36 (release), REVISION: 4.0"), jetson())


def jetson() -> Here:
    return replace(HERE, gpus=("GPU NVIDIA Orin",), driver="R36 (release), REVISION: 4.0")


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (replace(HERE, machine="aarch64"), ["made for x86_64", "is aarch64"]),
        (replace(HERE, cpu_flags=frozenset({"avx2"})), ["avx2, fma", "has no fma"]),
        (replace(HERE, cpu_flags=frozenset()), ["has no avx2, fma"]),
        (
            replace(HERE, installed=None),
            ["onnxruntime >=1.23,<2", "not installed", "pip install 'onnxruntime>=1.23,<2'"],
        ),
        (replace(HERE, installed="1.22.9"), ["1.22.9 is installed", "measured with 1.32.0"]),
        (replace(HERE, installed="1.23rc1"), ["1.23rc1 is installed"]),
        (replace(HERE, installed="2.0"), ["2.0 is installed"]),
        (replace(HERE, installed="unknown"), ["'unknown' is no release"]),
    ],
)
def test_what_is_refused_says_what_was_asked_found_and_to_do(here: Here, words: list[str]) -> None:
    said = str(refusal(WANTED, here))
    assert [word for word in words if word not in said] == []


def test_a_gpu_and_its_driver_are_the_ones_that_were_measured() -> None:
    wanted = replace(WANTED, gpu="Orin", driver="R36 (release), REVISION: 4.0")
    assert "here is none" in refusal(wanted, HERE).message
    assert "here is GPU NVIDIA Xavier" in refusal(wanted, replace(jetson(), gpus=("GPU NVIDIA Xavier",))).message
    assert "R35" in refusal(wanted, replace(jetson(), driver="R35 (release), REVISION: 5.0")).message


def test_releases_are_ordered_as_packages_order_them() -> None:
    ordered = ["0.9", "1.2rc1", "1.2", "1.2.0.1", "1.10", "1.10.1", "2!"]
    keys = [version_key(item) for item in ordered[:-1]]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
    assert version_key("1.2.0") == version_key("1.2") == version_key("1.2.0+cu12") == version_key("1.2.post1")


def test_this_machine_is_looked_at(tmp_path: Path) -> None:
    found = look("numpy")
    assert found.installed is not None and found.machine and found.cpu_flags
    assert look("no-such-package-anywhere").installed is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("Features\t: asimd fphp\n\nFeatures\t: asimd\n")
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic\n")
    there = look("numpy", tmp_path)
    assert (there.cpu_flags, there.driver, there.gpus) == ({"asimd"}, "R36 (release), REVISION: 4.0", ())
