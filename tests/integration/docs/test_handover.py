"""The handover example is built and run: a C++ program, a RAUC bundle, a Mender artifact with its update module."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import product_kit as kit
import pytest
from fault_kit import need_program

from edgedeploy.runtime.bundle.load import load
from edgedeploy.study.bundle.pack import pack

pytestmark = pytest.mark.beside

REPO = Path(__file__).resolve().parents[3]
EXAMPLE = REPO / "docs" / "examples" / "handover"


class Made:
    """Signed bundles of releases 1 and 2 for OpenVINO, and keys as each tool wants them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.key, self.trust = kit.make_key(place)
        self.files = kit.make_files("openvino")
        self.bundles = [
            kit.write_signed(place / f"r{number}", kit.changed(self.files, release=number), self.key)
            for number in (1, 2)
        ]
        self.packed = [place / f"model-{number}.tar" for number in (1, 2)]
        for bundle, packed in zip(self.bundles, self.packed, strict=True):
            pack(bundle, packed)
        self.environment = {
            **os.environ,
            "EDGEDEPLOY_PYTHON": sys.executable,
            "EDGEDEPLOY_TRUST": str(self.trust),
            "EDGEDEPLOY_ROOT": str(place / "root"),
            "PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH", "")])),
        }

    def run(self, *argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(item) for item in argv],
            capture_output=True,
            text=True,
            check=False,
            env={**self.environment, **environment},
        )

    def done(self, *argv: str | Path, **environment: str) -> str:
        found = self.run(*argv, **environment)
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    def current(self) -> int:
        return load(self.place / "root" / "current", trust=self.trust).release


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def need_header(path: str, package: str) -> None:
    if not Path("/usr/include", path).is_file():
        pytest.skip(f"no {path} on this machine: apt-get install {package}")


def test_a_cpp_program_verifies_and_proves_a_bundle(made: Made, tmp_path: Path) -> None:
    need_program("g++", "g++")
    need_header("openssl/evp.h", "libssl-dev")
    need_header("nlohmann/json.hpp", "nlohmann-json3-dev")
    program = tmp_path / "bundle"
    made.done(EXAMPLE / "cpp" / "make", program)
    bundle = made.bundles[0]
    assert made.done(program, bundle, made.trust).startswith('ready: "thyroid" release 1, worst golden distance ')

    def refused(files: Mapping[str, bytes], reason: str, trust: Path = made.trust, sign: bool = True) -> None:
        folder = kit.write_signed(tmp_path / "changed", files, made.key) if sign else kit.replace_folder(bundle, files)
        found = made.run(program, folder, trust)
        assert found.returncode == 2 and reason in found.stderr, found.stderr

    signed = {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    weights = bytearray(signed["artifact/model.bin"])
    weights[40] ^= 1
    refused({**signed, "artifact/model.bin": bytes(weights)}, "tampered", sign=False)
    refused({**signed, "extra": b""}, "tampered", sign=False)
    refused({name: data for name, data in signed.items() if name != "model.sig"}, "unsigned", sign=False)
    other = tmp_path / "other"
    other.mkdir()
    refused(signed, "untrusted", kit.make_key(other)[1], sign=False)
    golden = kit.npy(np.load(made.bundles[1] / "golden/c1.out.npy") * np.float32(1.001))
    refused(kit.changed({**made.files, "golden/c1.out.npy": golden}), "wrong_answer: case c1")


def make_certificate(place: Path) -> tuple[Path, Path]:
    """A key and its certificate as RAUC wants them: not the key that signs models."""
    need_program("openssl", "openssl")
    key, certificate = place / "rauc.key.pem", place / "rauc.cert.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    argv += ["-subj", "/CN=lab", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True)
    return certificate, key


def test_a_rauc_bundle_is_built_and_its_hook_activates(made: Made, tmp_path: Path) -> None:
    """RAUC's service needs D-Bus and slots: it is its hook that runs here, as RAUC calls it."""
    need_program("rauc", "rauc")
    need_program("mksquashfs", "squashfs-tools")
    need_program("unsquashfs", "squashfs-tools")
    certificate, key = make_certificate(tmp_path)
    for number, bundle in enumerate(made.packed, start=1):
        packed = tmp_path / f"model-{number}.raucb"
        made.done(EXAMPLE / "rauc" / "make", bundle, str(number), certificate, key, packed)
        told = made.done("rauc", f"--keyring={certificate}", "info", packed)
        assert "Compatible" in told and "my-cart" in told and "install" in told
        content = tmp_path / f"content-{number}"
        made.done("unsquashfs", "-d", content, packed)
        made.done(content / "hook", "slot-install", RAUC_IMAGE_NAME=str(content / "model.tar"), RAUC_SLOT_CLASS="model")
        assert made.current() == number
    older = made.run(
        tmp_path / "content-1" / "hook", "slot-install", RAUC_IMAGE_NAME=str(tmp_path / "content-1/model.tar")
    )
    assert older.returncode == 2 and "downgrade" in older.stderr
    assert made.current() == 2


class Device:
    """Calls the update module as Mender's client does: by state, in a folder with the artifact's files."""

    def __init__(self, made: Made, artifact: Path, place: Path) -> None:
        self.made, self.folder = made, place
        (place / "tmp").mkdir(parents=True)
        made.done("mender-artifact", "dump", "--files", place / "files", artifact)

    def state(self, name: str) -> subprocess.CompletedProcess[str]:
        return self.made.run(EXAMPLE / "mender" / "edgedeploy-model", name, self.folder)


def test_a_mender_artifact_is_built_and_its_module_installs_and_rolls_back(made: Made, tmp_path: Path) -> None:
    need_program("mender-artifact", "mender-artifact")
    need_program("openssl", "openssl")
    key, public = tmp_path / "mender.pem", tmp_path / "mender.pub"
    made.done("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    made.done("openssl", "ec", "-in", key, "-pubout", "-out", public)
    devices = []
    for number, bundle in enumerate(made.packed, start=1):
        artifact = tmp_path / f"model-{number}.mender"
        made.done(EXAMPLE / "mender" / "make", bundle, f"model-{number}", key, artifact)
        assert "validated successfully" in made.done("mender-artifact", "validate", "-k", public, artifact)
        devices.append(Device(made, artifact, tmp_path / f"device-{number}"))
    first, second = devices
    assert first.state("NeedsArtifactReboot").stdout.strip() == "No"
    assert first.state("SupportsRollback").stdout.strip() == "Yes"
    for device, number in ((first, 1), (second, 2)):
        assert device.state("ArtifactInstall").returncode == 0
        assert device.state("ArtifactCommit").returncode == 0
        assert made.current() == number
    shutil.rmtree(first.folder / "tmp")
    (first.folder / "tmp").mkdir()
    assert first.state("ArtifactInstall").returncode != 0  # a downgrade
    assert first.state("ArtifactRollback").returncode == 0
    assert made.current() == 2  # nothing was installed, so that nothing is taken back
    assert second.state("ArtifactRollback").returncode == 0
    assert made.current() == 1
