"""Sites for tests: folders with images, a task and a site file each, and a coordinator's file; a recorder of the wire."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from benchmarks.clinic_kit import sites_task
from PIL import Image

CASES = {"calibration": 6, "selection": 10, "confirmation": 10}
FEW = {"calibration": 6, "selection": 3, "confirmation": 10}
TOKEN = "a-token-of-the-tests-0123456789"
CANDIDATES: tuple[dict[str, str | int], ...] = (
    {"target": "onnxruntime", "precision": "int8", "weight_bits": 7, "calibration_cases": 1},
    {"target": "onnxruntime", "precision": "int8", "weight_bits": 7, "calibration_cases": 1000},
)
"""The first one is bad where a site's first calibration image is black: whatever processor runs it."""


def write_site(
    folder: Path,
    tone: float,
    seed: int,
    *,
    dark: bool,
    way: str,
    board: str = "local",
    cases: dict[str, int] = CASES,
    margin: float = 0.05,
    queries: int = 8,
) -> Path:
    """A site whose first calibration image is black (``dark``); ``way`` are the keys of how it hears of requests."""
    sites_task.write_images(folder / "images", tone, seed, cases)
    if dark:
        Image.new("L", (sites_task.SIDE, sites_task.SIDE)).save(folder / "images" / "calibration-000.image.png")
    shutil.copy(sites_task.__file__, folder / "lesions.py")
    path = folder / "site.toml"
    root = "" if ":" in board else f'root = "{folder / "agent"}"'  # of its own: other tests hold this user's
    path.write_text(
        f"""
[site]
name = "{folder.name}"
{way}
[task]
kind = "python"
object = "lesions.py:make_task"
[board]
name = "cart"
kind = "{board}"
{root}
[evidence]
margin = {margin}
lost_case = 0.5
[measure]
queries = {queries}
warmup = 0
cold_starts = 0
max_background_cores = 64
max_spread = 50.0
max_drift = 50.0
max_clock_drift = 50.0
"""
    )
    return path


def write_sites(
    folder: Path,
    names: Sequence[str],
    extra: str = "",
    candidates: Sequence[dict[str, str | int]] = CANDIDATES,
    margin: float = 0.05,
) -> Path:
    """``names`` have a token each, in NAME.token, where ``extra`` says where to listen."""
    points = "\n".join(
        "[[candidate]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in point.items())
        for point in candidates
    )
    each = 'token_file = "{name}.token"\n' if "listen" in extra else ""
    sites = "\n".join(f'[[site]]\nname = "{name}"\nmargin = {margin}\n{each.format(name=name)}' for name in names)
    path = folder / "sites.toml"
    path.write_text(
        f'[federate]\nname = "lesions"\ncheckpoint = "global.pt"\nmetric = "dice"\n{extra}\n{points}\n{sites}\n'
    )
    return path


def write_tokens(folder: Path, name: str) -> None:
    """Of both sides: the site's own file, and the coordinator's."""
    for path in (folder / name / "token", folder / f"{name}.token"):
        path.write_text(TOKEN + name)
        path.chmod(0o600)


def write_checkpoint(path: Path) -> None:
    import torch

    torch.save(sites_task.trained((0.2, 0.65), 0, steps=250).state_dict(), path)


class Wire:
    """Every byte that went through a proxy: ``up`` from the site, ``down`` to it."""

    def __init__(self) -> None:
        self.up = bytearray()
        self.down = bytearray()
        self.port = 0


@contextmanager
def recorded(port: int) -> Iterator[Wire]:
    """A proxy on a port of its own in front of ``port`` of this host."""
    wire, server = Wire(), socket.create_server(("127.0.0.1", 0))
    wire.port = server.getsockname()[1]

    def pump(source: socket.socket, to: socket.socket, kept: bytearray) -> None:
        try:
            while data := source.recv(1 << 16):
                kept += data
                to.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, to):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", port))
            except OSError:
                near.close()
                continue
            for pair in ((near, far, wire.up), (far, near, wire.down)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield wire
    finally:
        server.close()


def image_bytes(images: Path) -> Iterator[bytes]:
    """What would be an image on a wire: files as they are, pixels, and the network's input as float32 and float16."""
    for path in sorted(images.glob("*.png")):
        yield path.read_bytes()
        with Image.open(path) as image:
            pixels = np.asarray(image)
        yield pixels.tobytes()
        yield (pixels.astype(np.float32) / 255).tobytes()
        yield (pixels.astype(np.float32) / 255).astype(np.float16).tobytes()


def shared_windows(wire: bytes, images: Path, length: int = 16) -> set[bytes]:
    """Runs of ``length`` bytes that stand on the wire and in an image, but for runs of one value."""
    sent = {bytes(wire[place : place + length]) for place in range(len(wire) - length + 1)}
    found: set[bytes] = set()
    for data in image_bytes(images):
        found |= sent & {data[place : place + length] for place in range(len(data) - length + 1)}
    return {window for window in found if len(set(window)) > 1}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
