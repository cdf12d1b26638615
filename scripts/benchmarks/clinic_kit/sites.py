"""Three sites on three emulated boards, each a process of its own: one failing cell is found, mended and confirmed, and
every byte between sites and coordinator is inspected.

Simulated: the sites are processes of one host, their images are made up, their boards are emulated (SSH into this host, and
instruction emulators of an Arm board and of a Haswell). Real: training, export, int8, SSH, the studies, the connection.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import ROOT
from benchmarks.shared.rows import Asked, Row
from edgedeploy.boards.arm.build import create

SITES: Final = {
    "north": (0.2, "emulated:arm64", 8),
    "east": (0.45, "emulated", 700),
    "south": (0.75, "emulated:x86-avx2", 8),
}
"""Name to the tone of its images, its board, and timed queries: an instruction emulator has no time."""

TRAINED_ON: Final = tuple(tone for tone, _, _ in SITES.values())
MARGIN: Final = 0.02
CANDIDATES: Final = (
    {"target": "onnxruntime", "precision": "int8", "weight_bits": 8},
    {"target": "onnxruntime", "precision": "int8", "weight_bits": 7},
)
LIMIT_S: Final = 2400.0


def _told(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def sites_matrix(asked: Asked) -> Row:
    """`edgedeploy federate` and three `edgedeploy site` until the end, through a recorder."""
    sys.path.insert(0, str(ROOT / "tests"))
    import sites_kit

    create("arm64", _told)  # once a host, in minutes: a site does not make its own board
    with tempfile.TemporaryDirectory(prefix="edgedeploy-sites-") as name:
        folder, port = Path(name), sites_kit.free_port()
        _write_checkpoint(folder / "global.pt", asked.seed)
        with sites_kit.recorded(port) as wire:
            way = f'coordinator = "http://127.0.0.1:{wire.port}"\ntoken_file = "token"'
            for number, (site, (tone, board, queries)) in enumerate(SITES.items()):
                cases = {"calibration": 16, "selection": 24, "confirmation": 24}
                seed = 10 * asked.seed + number
                sites_kit.write_site(
                    folder / site,
                    tone,
                    seed,
                    dark=False,
                    way=way,
                    board=board,
                    cases=cases,
                    margin=MARGIN,
                    queries=queries,
                )
                sites_kit.write_tokens(folder, site)
            listen = f'listen = "127.0.0.1:{port}"'
            listed = sites_kit.write_sites(folder, [*SITES], listen, CANDIDATES, MARGIN)
            code = _run(folder, listed)
        up = bytes(wire.up)
        shared = sum(len(sites_kit.shared_windows(up, folder / site / "images")) for site in SITES)
        raw = sum(path.stat().st_size for site in SITES for path in (folder / site / "images").glob("*.image.png"))
        planted = next((folder / "south" / "images").glob("*.image.png")).read_bytes()[-60:-20]
        sees = bool(sites_kit.shared_windows(up + planted, folder / "south" / "images"))
        return _row(json.loads((folder / "out" / "release.json").read_text()), code, up, shared, sees, raw)


def _write_checkpoint(path: Path, seed: int) -> None:
    import torch

    from benchmarks.clinic_kit import sites_task

    torch.save(sites_task.trained(TRAINED_ON, seed).state_dict(), path)


def _run(folder: Path, listed: Path) -> int:
    """The coordinator's exit status. Sites are started once more where their board failed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "edgedeploy"]

    def started(what: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen([*command, *arguments], stdout=log, stderr=log, env=environment, cwd=ROOT)

    out = str(folder / "out")
    coordinator = started("coordinator", "federate", str(listed), "--out", out)
    sites = {site: started(site, "site", str(folder / site / "site.toml")) for site in SITES}
    give_up_s = time.monotonic() + LIMIT_S
    try:
        while coordinator.poll() is None and time.monotonic() < give_up_s:
            time.sleep(1.0)
            for site, process in sites.items():
                if process.poll() == 3:  # a board's failure: the same command goes on
                    sites[site] = started(site, "site", str(folder / site / "site.toml"))
                elif process.returncode:
                    raise RuntimeError((folder / f"{site}.log").read_text()[-2000:])
        if coordinator.poll() is None:
            raise RuntimeError((folder / "south.log").read_text()[-2000:])
        return int(coordinator.returncode)
    finally:
        for process in (coordinator, *sites.values()):
            process.terminate()
            process.wait()


WHAT = "three sites, three boards"
BAR = "one failing cell found, mended, confirmed; 0 bytes of image on the wire"


def _row(release: dict[str, Any], code: int, up: bytes, shared: int, sees: bool, raw: int) -> Row:
    mean = next((item for item in release["means_over_sites"] if item["candidate"] == 0), None)
    if mean is None:  # a site has no number of the first candidate: its runs were disturbed, or it failed
        why = {site: release["failing"].get(site) or release["broken"].get(site) or "answered" for site in SITES}
        told = "; ".join(f"{site}: {text}" for site, text in why.items())
        return Row(
            WHAT, f"{release['outcome']} (exit status {code}), no mean over sites of 8-bit weights. {told}", BAR, False
        )
    south = [answer for answer in release["answers"]["south"] if answer["kind"] == "measured"]
    lost = {cell["candidate"]: -cell["endpoints"][0]["gain"] for cell in south[-1]["cells"] if cell["endpoints"]}
    found_it = south[0]["pick"] is None and release["mended"] == {"south": [0]}
    confirmed = {
        site: answers[-1]["confirmed"]["outcome"] if answers[-1]["confirmed"] else "not confirmed"
        for site, answers in release["answers"].items()
    }
    all_confirmed = code == 0 and release["outcome"] == "released" and set(confirmed.values()) == {"confirmed"}
    boards = ", ".join(
        f"{site} {answers[0]['board']['arch']}" + ("" if _has_vnni(answers[0]["board"]["isa"]) else " without VNNI")
        for site, answers in release["answers"].items()
    )
    p99 = [
        f"{cell['p99_ns'] / 1e6:.2f} ms (baseline beside {cell['p99_beside_ns'] / 1e6:.2f})"
        for cell in release["answers"]["east"][0]["cells"]
        if cell["p99_ns"] and cell["p99_beside_ns"]
    ]
    agreed = sum(outcome == "confirmed" for outcome in confirmed.values())
    found = (
        f"{boards}; 8-bit weights lose {lost.get(0, float('nan')):.4f} Dice at south (margin {MARGIN}), the mean over sites "
        f"loses {-mean['gain']:.4f} ({'within' if mean['within_margin'] else 'beyond'} the margin); 7-bit weights lose "
        f"{lost.get(1, float('nan')):.4f}; {release['outcome']}, confirmed at {agreed} "
        f"of {len(confirmed)}; p99 at east {', '.join(p99) or 'none'}; {len(up)} bytes left the sites (requests and headers "
        f"too), {shared} runs of 16 bytes of any image among them (images: {raw} bytes; a planted piece of one is "
        f"{'found' if sees else 'MISSED'})"
    )
    return Row(WHAT, found, BAR, found_it and all_confirmed and shared == 0 and sees)


def _has_vnni(isa: list[str]) -> bool:
    return not {"avx512_vnni", "avx_vnni", "asimd", "asimddp"}.isdisjoint(isa)


ROWS = (sites_matrix,)
