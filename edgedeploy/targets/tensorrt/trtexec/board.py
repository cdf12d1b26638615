"""The board's side: which GPU, TensorRT and JetPack it has, and runs of its ``trtexec``.

Everything goes through a :class:`~edgedeploy.interfaces.board.Transport`; the board needs ``trtexec``, ``sha256sum`` and
``mkdir``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.errors import CommandFailed, TargetUnavailable
from edgedeploy.interfaces.board import Transport
from edgedeploy.targets.tensorrt.trtexec.log import LogRefused, Run, accept
from edgedeploy.targets.tensorrt.version import TrtVersion, version_in

CANDIDATES: Final = ("trtexec", "/usr/src/tensorrt/bin/trtexec")
"""Paths at which trtexec is looked for: JetPack installs it outside PATH."""

COMPUTE_CAPABILITIES: Final[Mapping[str, str]] = {
    "tegra210": "5.3",
    "tegra186": "6.2",
    "tegra194": "7.2",
    "tegra234": "8.7",
}
"""Compute capability of Jetson's chips, by their name in the device tree."""

SIMULATION: Final = "SIMULATION"
"""The tests' stand-in for trtexec prints this word; its results never count as measured."""

PROBE_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class TrtBoard:
    """The board properties that an engine depends on. ``jetpack`` is the release of Jetson Linux, ``none`` on other
    machines; ``compute_capability`` is None when only a build's log shows it."""

    trtexec: str
    version: TrtVersion
    gpu: str
    compute_capability: str | None
    jetpack: str
    simulated: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "tensorrt": self.version.exact,
            "gpu": self.gpu,
            "compute_capability": self.compute_capability,
            "jetpack": self.jetpack,
            "simulated": self.simulated,
        }


def probe_board(transport: Transport, *, candidates: Sequence[str] = CANDIDATES, sysroot: str = "") -> TrtBoard:
    """Raises ``TargetUnavailable`` for a board without trtexec or without an NVIDIA GPU, ``BoardError``.

    ``trtexec --version`` prints the release in its banner and exits with 1 (it finds no model), so the banner decides.
    ``sysroot`` stands before the paths of system files.
    """
    for trtexec in candidates:
        done = transport.run([trtexec, "--version"], timeout_s=PROBE_TIMEOUT_S)
        text = (done.stderr + b"\n" + done.stdout).decode("utf-8", errors="replace")
        if (version := version_in(text)) is not None:
            gpu, capability = _gpu(transport, sysroot)
            release = _read(transport, f"{sysroot}/etc/nv_tegra_release")
            return TrtBoard(trtexec, version, gpu, capability, jetpack_of(release), SIMULATION in text)
        if "TensorRT.trtexec #" in text:
            raise TargetUnavailable(
                "TensorRT 8 or newer", f"{trtexec} is TensorRT 7 or older", "Upgrade JetPack to 4.6 or newer"
            )
    raise TargetUnavailable(
        "a board with TensorRT",
        f"it has no trtexec (looked for {', '.join(candidates)})",
        "On a Jetson: apt-get install nvidia-jetpack; no other board can measure this target",
    )


def jetpack_of(release: str) -> str:
    """``L4T 36.4.3`` from ``/etc/nv_tegra_release``; ``none`` where that is missing."""
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return f"L4T {match.group(1)}.{match.group(2)}" if match else "none"


def run_trtexec(transport: Transport, argv: Sequence[str], *, timed: bool, timeout_s: float) -> Run:
    """One run with a log that passes all checks. Raises ``LogRefused`` with the raw log, or ``BoardError``."""
    done = transport.run(argv, timeout_s=timeout_s)
    text = (done.stderr + b"\n" + done.stdout).decode("utf-8", errors="replace")
    if done.exit_status is None:
        raise CommandFailed(
            f"run {argv[0]}", f"it was ended from outside; it said {text.strip()[-300:]!r}", "Run it again"
        )
    run = accept(text, timed=timed)
    if done.exit_status != 0:
        raise LogRefused("failed", f"exit status {done.exit_status} although it prints PASSED", text)
    return run


def _gpu(transport: Transport, sysroot: str) -> tuple[str, str | None]:
    model = _read(transport, f"{sysroot}/proc/device-tree/model").rstrip("\0\n")
    chips = _read(transport, f"{sysroot}/proc/device-tree/compatible")
    if model and "nvidia,tegra" in chips:
        chip = chips[chips.index("nvidia,tegra") + len("nvidia,") :].split("\0")[0]
        return f"{model} ({chip})", COMPUTE_CAPABILITIES.get(chip)
    done = transport.run(
        ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"], timeout_s=PROBE_TIMEOUT_S
    )
    line = done.stdout.decode("utf-8", errors="replace").strip().splitlines()
    name, _, capability = line[0].rpartition(", ") if done.exit_status == 0 and line else ("", "", "")
    if not name:
        raise TargetUnavailable("an NVIDIA GPU", "trtexec is there, a Jetson or nvidia-smi is not", "Use a Jetson")
    return name, capability


def _read(transport: Transport, path: str) -> str:
    data = transport.read_bytes(path, timeout_s=PROBE_TIMEOUT_S)
    return "" if data is None else data.decode("utf-8", errors="replace")
