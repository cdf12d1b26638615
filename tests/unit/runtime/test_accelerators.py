"""What a board has beside its CPU, from files laid out as its kernel does."""

from __future__ import annotations

import json
from pathlib import Path

import made_up

from edgedeploy.records.board import BoardInfo
from edgedeploy.runtime.sensors.accelerators import accelerators
from edgedeploy.runtime.sensors.probe import probe


def platform_device(system: Path, name: str, *compatible: str) -> None:
    place = system / "sys/bus/platform/devices" / name / "of_node"
    place.mkdir(parents=True)
    (place / "compatible").write_text("\0".join([*compatible, ""]), encoding="utf-8")


def render_node(system: Path, number: int, vendor: str, device: str) -> None:
    place = system / f"sys/class/drm/renderD{number}/device"
    place.mkdir(parents=True)
    (place / "vendor").write_text(f"{vendor}\n", encoding="ascii")
    (place / "device").write_text(f"{device}\n", encoding="ascii")


def in_class(system: Path, folder: str, entry: str, driver: str = "") -> None:
    device = system / "sys/class" / folder / entry / "device"
    device.mkdir(parents=True)
    if driver:
        place = system / "sys/bus/pci/drivers" / driver
        place.mkdir(parents=True)
        (device / "driver").symlink_to(place)


def test_an_orin_has_a_gpu_and_two_dlas(tmp_path: Path) -> None:
    platform_device(tmp_path, "17000000.gpu", "nvidia,ga10b")
    platform_device(tmp_path, "15880000.nvdla0", "nvidia,tegra234-nvdla")
    platform_device(tmp_path, "158c0000.nvdla1", "nvidia,tegra234-nvdla")
    platform_device(tmp_path, "3100000.serial", "nvidia,tegra194-hsuart")
    assert accelerators(tmp_path) == ["DLA nvidia,tegra234-nvdla (2)", "GPU nvidia,ga10b"]


def test_small_arm_boards(tmp_path: Path) -> None:
    platform_device(tmp_path, "fdab0000.npu", "rockchip,rk3588-rknpu")
    platform_device(tmp_path, "fb000000.gpu", "rockchip,rk3588-mali", "arm,mali-valhall-csf")
    platform_device(tmp_path, "fe8f0000.usb", "rockchip,rk3588-usb")
    in_class(tmp_path, "apex", "apex_0")
    assert accelerators(tmp_path) == ["GPU rockchip,rk3588-mali", "NPU rockchip,rk3588-rknpu", "TPU apex"]


def test_an_intel_cart_with_an_npu(tmp_path: Path) -> None:
    render_node(tmp_path, 128, "0x8086", "0x7d55")
    in_class(tmp_path, "accel", "accel0", "intel_vpu")
    assert accelerators(tmp_path) == ["GPU Intel 0x7d55", "NPU intel_vpu"]


def test_a_card_is_told_once_by_its_own_driver(tmp_path: Path) -> None:
    place = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    place.mkdir(parents=True)
    (place / "information").write_text("Model: \t\t NVIDIA RTX A2000\nIRQ:   \t\t 166\n", encoding="ascii")
    render_node(tmp_path, 128, "0x10de", "0x2531")
    render_node(tmp_path, 129, "0x102b", "0x0536")  # the display of a server's board management
    assert accelerators(tmp_path) == ["GPU NVIDIA RTX A2000"]


def test_a_machine_without_any(tmp_path: Path) -> None:
    assert accelerators(tmp_path) == []
    assert isinstance(probe()["accelerators"], list)


def test_boards_with_and_without_one_are_of_two_kinds() -> None:
    plain, equipped = made_up.board(), made_up.board(accelerators=("NPU intel_vpu",))
    assert equipped.unlike(plain) == ("accelerators ('NPU intel_vpu',), not ()",)
    assert BoardInfo.from_json(json.loads(json.dumps(equipped.as_json()))) == equipped
    older = {name: value for name, value in plain.as_json().items() if name != "accelerators"}
    assert BoardInfo.from_json(older) == plain
