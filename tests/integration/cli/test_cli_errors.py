"""What a user gets wrong is one clear line on stderr, the right exit code, and nothing written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import warm_cli
from PIL import Image

from edgedeploy.boards.emulated.board import make_key, serve

pytestmark = pytest.mark.beside

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"

FOLDER_TASK = """\
[task]
kind = "segmentation-folder"
options = { root = "data", calibration_cases = 2, selection_cases = 2, classes = { nerve = 1 } }
"""

WITHOUT_OPENVINO = """
from importlib import metadata
found = metadata.version
def version(name):
    if name == "openvino":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
from edgedeploy.__main__ import main
main()
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for name in ("squares.py", "squares.toml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    path = tmp_path / "squares.toml"
    text = path.read_text().replace('[[boards]]\nname = "here"\nkind = "local"\n', "")
    text = text.replace('name = "loopback"\nkind = "emulated"\nserver = "embedded"', 'name = "here"\nkind = "local"')
    path.write_text(text)
    return path


@pytest.fixture
def folder_study(study: Path) -> Path:
    """A study over a folder of twelve sound images, for a test to spoil."""
    rng = np.random.default_rng(0)
    for part in ("", "test/"):
        for kind in ("images", "masks"):
            folder = study.parent / "data" / f"{part}{kind}"
            folder.mkdir(parents=True)
            for number in range(14 if not part else 3):
                high = 2 if kind == "masks" else 256
                pixels = rng.integers(0, high, (40, 48), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:02}.png")
    text = study.read_text()
    start, end = text.index("[task]"), text.index("[[boards]]")
    text = text[:start] + FOLDER_TASK + text[end:]
    study.write_text(text.replace("kernel = [3, 5]", "resolution = [192, 128]").replace('"correct"', '"dice_mean"'))
    return study


STARTED = (sys.executable, "-m", "edgedeploy")


def refused(study: Path, code: int, *words: str, prefix: tuple[str, ...] = ()) -> None:
    out = study.parent / "out"
    before = sorted(study.parent.rglob("*"))
    argv = [*(prefix or warm_cli.command()), "search", str(study), "--out", str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    written = [path for path in sorted(study.parent.rglob("*")) if "__pycache__" not in str(path)]
    assert written == before


def change(study: Path, old: str, new: str) -> None:
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new))


def test_missing_study_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.toml", 2, "absent.toml", "no such file", prefix=STARTED)


def test_unknown_key_names_the_near_miss(study: Path) -> None:
    change(study, "trials = 6", "trails = 6")
    refused(study, 2, "squares.toml:", "budget.trails", "Did you mean 'trials'?")


def test_unknown_target(study: Path) -> None:
    change(study, '"openvino"]', '"openvnio"]')
    refused(study, 2, "openvnio", "Did you mean 'openvino'?")


def test_a_package_that_is_not_installed_names_the_extra(study: Path) -> None:
    refused(study, 2, "openvino", "pip install", prefix=(sys.executable, "-c", WITHOUT_OPENVINO))


def test_unreachable_board(study: Path) -> None:
    change(study, 'kind = "local"', 'kind = "ssh"\nhost = "127.0.0.1"\nport = 9\nuser = "nobody"\naway = "0 s"')
    refused(study, 3, "127.0.0.1", "refused", prefix=STARTED)


@pytest.mark.fault(31)
def test_unknown_host_key(study: Path) -> None:
    known = study.parent / "known_hosts"
    known.write_text("")
    with serve("embedded") as target:
        change(study, 'kind = "local"', ssh_table(target, known, Path(str(target.identity))))
        refused(study, 3, "SHA256:", "known_hosts")


def test_a_key_the_board_does_not_take(study: Path) -> None:
    key = study.parent / "other_key"
    make_key(key)
    with serve("embedded") as target:
        change(study, 'kind = "local"', ssh_table(target, Path(str(target.known_hosts)), key))
        refused(study, 3, str(key))


def ssh_table(target: object, known_hosts: Path, identity: Path) -> str:
    values = {name: getattr(target, name) for name in ("host", "port", "user")}
    return (
        f'kind = "ssh"\nhost = "{values["host"]}"\nport = {values["port"]}\nuser = "{values["user"]}"\n'
        f'known_hosts = "{known_hosts}"\nidentity = "{identity}"'
    )


def test_sound_data_is_taken_up_to_the_board(folder_study: Path) -> None:
    change(folder_study, 'kind = "local"', 'kind = "ssh"\nhost = "127.0.0.1"\nport = 9\nuser = "nobody"\naway = "0 s"')
    refused(folder_study, 3, "127.0.0.1")


def test_missing_data_folder(folder_study: Path) -> None:
    shutil.rmtree(folder_study.parent / "data")
    refused(folder_study, 2, "no folder at")


def test_empty_image_folder(folder_study: Path) -> None:
    shutil.rmtree(folder_study.parent / "data" / "images")
    (folder_study.parent / "data" / "images").mkdir()
    refused(folder_study, 2, "images", "none")


def test_mask_with_unknown_labels(folder_study: Path) -> None:
    mask = folder_study.parent / "data" / "masks" / "03.png"
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(mask)
    refused(folder_study, 2, "03.png", "7", "nerve")


def test_corrupt_png(folder_study: Path) -> None:
    image = folder_study.parent / "data" / "images" / "05.png"
    image.write_bytes(image.read_bytes()[:700])
    refused(folder_study, 2, "05.png")


def test_image_without_its_mask(folder_study: Path) -> None:
    (folder_study.parent / "data" / "masks" / "06.png").unlink()
    refused(folder_study, 2, "06", "mask")


def test_a_folder_that_is_no_study(tmp_path: Path) -> None:
    for command in ("front", "report"):
        argv = [sys.executable, "-m", "edgedeploy", command, str(tmp_path)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "holds no study" in done.stderr


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ('"$0" -m edgedeploy recipe demo >&-', 0, ""),
        ('"$0" -m edgedeploy front /nowhere 2>&-', 2, ""),
        ('"$0" -m edgedeploy recipe demo >/dev/full', 3, "No space left on device"),
        ('"$0" -m edgedeploy front /nowhere 2>/dev/full', 2, ""),
        ('"$0" -m edgedeploy recipe demo >/dev/full 2>/dev/full', 3, ""),
        ('"$0" -m edgedeploy.runtime verify /nowhere --unsigned >/dev/full 2>/dev/full', 3, ""),
        ('"$0" -m edgedeploy.runtime verify /nowhere --unsigned 2>/dev/full', 2, ""),
    ],
)
def test_closed_and_full_outputs_end_without_a_traceback(command: str, code: int, said: str) -> None:
    done = subprocess.run(
        ["sh", "-c", command, sys.executable], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == bool(said)
