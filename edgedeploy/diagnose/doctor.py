"""What works here: targets, boards and this host, each with the command that installs what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgedeploy.boards.care.quarantine import Quarantine, Record, remedy_of
from edgedeploy.boards.open import open_board
from edgedeploy.compress.host import TrainingHost, this_host
from edgedeploy.errors import EdgeDeployError, SpecError, nearest
from edgedeploy.interfaces.ability import INT8_DOT_PRODUCTS, NATIVE_BFLOAT16, X86, Ability, abilities, sums_int8_exactly
from edgedeploy.interfaces.target import BoardBound, FitsBoard
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.units import human
from edgedeploy.records.variant import NO_CODEC
from edgedeploy.runtime.sensors.probe import probe
from edgedeploy.spec.boards import EMULATED_WORD, BoardTable, emulated_board
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.adoption import models_of, models_to_take
from edgedeploy.study.origin import KEY, find_origin
from edgedeploy.study.outlook import default_folder
from edgedeploy.targets.registry import demands_of, find_targets, sessions_of
from edgedeploy.tasks.load import load_task, task_sources

NEEDED: Final = (
    ("torch", "the model", "pip install 'torch>=2.6,<2.14'"),
    ("torch_pruning", "structured pruning", "pip install 'edgedeploy[study]'"),
    ("onnx", "the reference format", "pip install 'edgedeploy[study]'"),
    ("onnxscript", "export from torch", "pip install 'edgedeploy[study]'"),
    ("optuna", "the search", "pip install 'edgedeploy[study]'"),
    ("scipy", "the search and surface metrics", "pip install 'edgedeploy[study]'"),
    ("monai", "Dice, surface Dice, HD95", "pip install 'edgedeploy[study]'"),
    ("paramiko", "boards over SSH", "pip install 'edgedeploy[study]'"),
    ("asyncssh", "the embedded SSH server of emulated boards", "pip install 'edgedeploy[study]'"),
    ("plotly", "the report's plots", "pip install 'edgedeploy[study]'"),
    ("jinja2", "the report's page", "pip install 'edgedeploy[study]'"),
)


OF_KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "volumes": ("nibabel", "pip install 'edgedeploy[volumes]'"),
    "detection": ("pycocotools", "pip install 'edgedeploy[detection]'"),
    "multi-modal": ("tokenizers", "pip install 'edgedeploy[text]'"),
    "low-dose-ct": ("skimage", "pip install 'edgedeploy[ct]'"),
}
"""Kinds of task that need more than ``NEEDED``: the package, and the command that brings it."""


@dataclass(frozen=True)
class Finding:
    """The result of one check. ``ok`` is None for something optional that is missing."""

    what: str
    ok: bool | None
    found: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"what": self.what, "ok": self.ok, "found": self.found, "remedy": self.remedy}


def study_findings(task: Mapping[str, Any], space: Mapping[str, Sequence[Any]]) -> list[Finding]:
    """Packages that a study with that table of its task and that space needs beside those of every study."""
    wanted = []
    kind, own_data = str(task.get("kind")), (task.get("options") or {}).get("root")
    if kind in OF_KINDS and not (kind == "low-dose-ct" and own_data):  # pairs of one's own are not scanned here
        wanted.append((*OF_KINDS[kind], f"task kind {kind!r}"))
    codecs = "pip install 'edgedeploy[codecs]'"
    if any(value != NO_CODEC for value in space.get("image_codec", ())):
        wanted.append(("imagecodecs", codecs, "space.image_codec"))
    if "int8-zstd" in space.get("storage", ()):
        wanted.append(("zstandard", codecs, "space.storage"))
    findings = []
    for name, remedy, use in wanted:
        there = importlib.util.find_spec(name) is not None
        findings.append(Finding(f"package {name}", there, use, "" if there else remedy))
    return findings


def warm_start_findings(spec: StudySpec, source: SpecSource) -> list[Finding]:
    """Whether the study that this one is to start from can be started from, and what of it is whole; nothing where none is
    named. Writes nothing."""
    named, what = spec.search.warm_start, f"study file, {KEY}"
    if named is None:
        return []
    table, folder = spec.task.model_dump(), source.path.resolve().parent
    try:
        task, sources = load_task(table, folder), task_sources(table, folder)
    except EdgeDeployError as exc:
        return [
            Finding(what, False, f"not looked at, as the task cannot be loaded: {exc.asked}: {exc.found}", exc.remedy)
        ]
    try:
        origin = find_origin(spec, source, task, sources, named, default_folder(spec))
    except EdgeDeployError as exc:
        return [Finding(what, False, exc.found, exc.remedy)]
    made = models_of(origin)
    whole = made & models_to_take(origin, sums_alike=True)
    text = f"{origin.name}: {len(origin.measurements)} variants measured, {len(whole)} of {len(made)} models whole"
    remedy = "" if len(whole) == len(made) else "What is not whole is made anew; put a copy of it back to save that"
    return [Finding(what, True if not remedy else None, text, remedy)]


def target_findings() -> list[Finding]:
    """Every target that is registered, working or not; a broken plugin is listed with its reason."""
    findings = []
    for plugin in find_targets():
        if plugin.target is None:
            findings.append(
                Finding(f"target {plugin.name}", False, f"broken: {plugin.broken}", "Update or uninstall its package")
            )
            continue
        readiness = plugin.readiness()
        text = f"{readiness.found}; precisions: {', '.join(plugin.target.precisions)}"
        lacking = False if plugin.target.extra == "study" else None  # an extra of its own: not every study needs it
        findings.append(Finding(f"target {plugin.name}", readiness.ready or lacking, text, readiness.remedy))
    return findings


def board_findings(tables: Sequence[BoardTable]) -> list[Finding]:
    """Connect to each board and report what it is, why it cannot be reached, or that it is in quarantine. Quarantined
    boards of other studies come last."""
    findings = []
    quarantine = Quarantine()
    shown: set[Record] = set()
    for table in tables:
        what = f"board {table.name}"
        try:
            info = open_board(table.model_dump(), sessions_of()).probe()
        except EdgeDeployError as exc:
            findings.append(Finding(what, False, exc.found, exc.remedy))
            continue
        aside = quarantine.of(info)
        if aside is not None:
            shown.add(aside)
            findings.append(_set_aside(what, aside))
            continue
        runtimes = ", ".join(f"{name} {version}" for name, version in info.runtimes.items()) or "none"
        text = (
            f"{info.provenance}; {info.cpu}, {info.cores} cores, {human(info.memory_bytes, 'bytes')}, "
            f"{' '.join(info.isa) or 'no instruction set of note'}; "
            f"accelerators: {', '.join(info.accelerators) or 'none found'}; Python {info.python}, runtimes: {runtimes}"
        )
        remedy = "" if info.runtimes else _runtimes_remedy()
        findings.append(Finding(what, bool(info.runtimes), text, remedy))
        findings.append(_processor_finding(what, info))
        findings += _ability_findings(what, info)
    findings += [_set_aside(f"board {record.name}", record) for record in quarantine.records() if record not in shown]
    return findings


def _runtimes_remedy() -> str:
    """The package of each target whose runtime pip brings."""
    targets = [plugin.target for plugin in find_targets() if plugin.target is not None]
    packages = [target.session.packages[0] for target in targets if not isinstance(target, BoardBound)]
    return f"On the board: pip install {' '.join(dict.fromkeys(packages))}"


def _processor_finding(what: str, info: BoardInfo) -> Finding:
    """What the board's processor does slowly or wrongly, and how edgedeploy handles it. No training: boards do not
    train."""
    exact = sums_int8_exactly(info.arch, info.isa)
    parts = [
        f"float kernels: {_float_kernels(info.arch, info.isa)}",
        f"int8 kernels: {_int8_kernels(info.arch, info.isa)}",
    ]
    if info.clock != "wall":
        parts.append("programs run in an instruction emulator: no time is asked of it")
    return Finding(f"{what}, processor", True if exact else None, "; ".join(parts))


def processor_findings(arch: str, host: TrainingHost, cores: int) -> list[Finding]:
    """What this host's processor does slowly or by emulation, and how edgedeploy handles it; ``ok`` is then None."""
    isa = host.isa
    kernels = _float_kernels(arch, isa)
    if host.native_bfloat16:
        training = f"native ({' '.join(flag for flag in NATIVE_BFLOAT16 if flag in isa)})"
    else:
        by = f"oneDNN, which the environment limits to {host.limit}" if host.limit else "this CPU"
        training = f"emulated by {by}, 7 to 9 times slower than float32: training uses float32"
    return [
        Finding("processor", True, f"{host.cpu}, {cores} cores"),
        Finding("float kernels", None if kernels == NO_VECTORS else True, kernels),
        Finding("int8 kernels", True if sums_int8_exactly(arch, isa) else None, _int8_kernels(arch, isa)),
        Finding("bfloat16 training", True if host.native_bfloat16 else None, training),
    ]


NO_VECTORS: Final = "neither AVX-512 nor AVX2: narrower than either, and slower"


def _float_kernels(arch: str, isa: Collection[str]) -> str:
    if arch.lower() not in X86:
        return "SVE" if "sve" in isa else "Neon"
    if "avx512f" in isa:
        return "AVX-512"
    return "AVX2, half as wide as AVX-512" if "avx2" in isa else NO_VECTORS


def _int8_kernels(arch: str, isa: Collection[str]) -> str:
    if sums_int8_exactly(arch, isa):
        fast = [flag for flag in INT8_DOT_PRODUCTS if flag in isa]
        return f"exact ({' '.join(fast)})" if fast else "exact, without dot products: may be slower than float32"
    return (
        "16-bit sums saturate in ONNX Runtime and OpenVINO: int8 artifacts for this machine get 7-bit weights where they "
        "are nearer to the float model"
    )


def _set_aside(what: str, record: Record) -> Finding:
    return Finding(what, False, f"in quarantine since {record.since_utc}: {record.cause}", remedy_of(record))


def _ability_findings(what: str, info: BoardInfo) -> list[Finding]:
    """For each target whose runtime the board has: the precisions worth trying there, before anything is built."""
    findings = []
    for plugin in find_targets():
        if plugin.target is None or plugin.name not in info.runtimes:
            continue
        if isinstance(plugin.target, FitsBoard):
            text = f"{', '.join(plugin.target.precisions)}: what its GPU runs shows when an engine is built there"
        else:
            found = abilities(info, plugin.target.precisions, demands_of(plugin.target))
            text = "; ".join(f"{ability.precision} ({_worth(ability)})" for ability in found)
        findings.append(Finding(f"{what}, {plugin.name}", True, text))
    return findings


def _worth(ability: Ability) -> str:
    if not ability.runs:
        return f"left out: {ability.reason}"
    return f"native: {ability.reason}" if ability.native else ability.reason


def choose_boards(tables: Sequence[BoardTable], name: str) -> list[BoardTable]:
    """The board of that name, or the emulated processor of that word. Raises ``SpecError`` with the nearest known one."""
    if name.startswith(EMULATED_WORD) and name not in [table.name for table in tables]:
        return [emulated_board(name)]
    found = [table for table in tables if table.name == name]
    if not found:
        raise SpecError(
            f"board {name!r}", "there is none of that name", nearest(name, [table.name for table in tables])
        )
    return found


DEFAULT_BOARDS: Final = (
    BoardTable(name="local", kind="local"),
    BoardTable(name="emulated-embedded", kind="emulated", server="embedded"),
    BoardTable(name="emulated-sshd", kind="emulated", server="sshd"),
)
"""Checks that need no study file."""


def machine_findings() -> list[Finding]:
    """The host itself: interpreter, packages of a study, memory, and the programs that are nice to have."""
    version = platform.python_version()
    fits = sys.version_info[:2] >= (3, 11)
    findings = [Finding("python", fits, version, "" if fits else "Install Python 3.11 or newer")]
    here = probe()
    findings += processor_findings(here["arch"], this_host(), here["cores"])
    for name, use, remedy in NEEDED:
        there = importlib.util.find_spec(name) is not None
        findings.append(Finding(f"package {name}", there, use, "" if there else remedy))
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    enough = memory_bytes >= 6e9
    findings.append(
        Finding(
            "memory",
            enough,
            human(memory_bytes, "bytes"),
            "" if enough else "A study's peak is below 6 GB: use a host with more",
        )
    )
    for program, package, use in (
        ("sshd", "openssh-server", "emulated boards on the real SSH server"),
        ("qemu-aarch64-static", "qemu-user-static", "emulated:arm64 boards"),
        ("qemu-system-aarch64", "qemu-system-arm", "emulated:arm64-system boards"),
        ("qemu-x86_64-static", "qemu-user-static", "emulated:x86-avx2 boards, on x86-64 hosts"),
        ("chromium", "chromium", "the browser test of the report"),
    ):
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        remedy = "" if path else f"apt-get install {package}"
        findings.append(Finding(f"program {program}", True if path else None, path or f"not installed ({use})", remedy))
    return findings
