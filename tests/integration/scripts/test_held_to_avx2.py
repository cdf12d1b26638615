"""`scripts/held-to-avx2`: a runtime takes the kernels of a processor with AVX2 alone, at this processor's own speed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

pytestmark = pytest.mark.beside

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "held-to-avx2"
REFUSED = 77
LIMIT_S = 600.0

SEEN = """
import ctypes, json, mmap
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

value = helper.make_tensor_value_info
node = helper.make_node("MatMulInteger", ["pixels", "weights", "zero", "zero_of_weights"], ["sums"])
constants = {"weights": np.full((64, 64), 127, np.int8), "zero": np.uint8(0), "zero_of_weights": np.int8(0)}
graph = helper.make_graph(
    [node], "sums", [value("pixels", TensorProto.UINT8, (8, 64))], [value("sums", TensorProto.INT32, (8, 64))],
    [numpy_helper.from_array(np.asarray(data), name) for name, data in constants.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model.SerializeToString(), options)
(sums,) = session.run(None, {"pixels": np.full((8, 64), 255, np.uint8)})

code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b901000000 0f01d0 c3"))  # mov $1,%ecx; xgetbv; ret: the parts of the registers in use
in_use = ctypes.CFUNCTYPE(ctypes.c_uint32)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print(json.dumps({"sum": int(sums[0, 0]), "in_use": in_use, "cpu": open("/proc/cpuinfo").read()}))
"""
SATURATED = 32 * (2**15 - 1)
"""Pairs of products are added in 16 bits."""
AVX512_IN_USE = 0b1110_0000


@pytest.fixture
def held(tmp_path: Path) -> Any:
    """Run the script with the libraries of one folder: all of an environment would take minutes."""
    missing = [name for name in ("gcc", "objdump", "unshare") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace here")

    def run(libraries: Path, *program: str, **more: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, str(SCRIPT), "--libraries", str(libraries), *program]
        env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), **more}
        return subprocess.run(argv, capture_output=True, text=True, env=env, check=False, timeout=LIMIT_S)

    return run


def seen(done: subprocess.CompletedProcess[str]) -> Mapping[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def contents(libraries: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in libraries.glob("*.so*")}


def test_the_runtime_finds_avx2_and_its_int8_sums_saturate_and_a_second_start_is_short(held: Any) -> None:
    libraries = Path(onnxruntime.__file__).parent / "capi"
    before = contents(libraries)
    done = held(
        libraries, sys.executable, "-c", SEEN, NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_SKX AVX512_ICL AVX512_SPR"
    )
    found = seen(done)
    flags = {flag for line in found["cpu"].splitlines() if line.startswith("flags") for flag in line.split()}
    assert "avx2" in flags
    assert not {flag for flag in flags if flag.startswith(("avx512", "avx_vnni", "amx"))}
    assert "(held to AVX2)" in found["cpu"]
    assert (found["sum"], found["in_use"] & AVX512_IN_USE) == (SATURATED, 0)
    assert contents(libraries) == before  # the copies lie over them for that program alone
    again = held(libraries, sys.executable, "-c", "raise SystemExit(3)")
    assert ("looked through" in done.stderr, again.returncode, again.stderr) == (True, 3, "")


ASKS = """
#include <cpuid.h>
unsigned ask(void) {
    unsigned a, b, c, d;
    __cpuid_count(7, 0, a, b, c, d);
    return (b >> 5 & 1) | (b >> 16 & 1) << 1; /* AVX2, AVX512F */
}
void trap(void) { __builtin_trap(); }
"""
CPUID = b"\x0f\xa2"
CALL = "import ctypes, sys; print([getattr(ctypes.CDLL(path), sys.argv[1])() for path in sys.argv[2:]])"
NAMES = ("plain.so", "with space.so", "with\ttab.so", "with\nnewline.so")
SEND = "import os, signal; os.kill(os.getpid(), signal.SIGILL); print('alive')"


@pytest.fixture
def asking(held: Any, tmp_path: Path) -> list[str]:
    """One library that asks the processor, under several names in one folder."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    paths = [str(folder / name) for name in NAMES]
    for path in paths:
        command = ["gcc", "-x", "c", "-shared", "-fPIC", "-o", path, "-"]
        subprocess.run(command, input=ASKS, text=True, check=True)
    other = bytearray(Path(paths[0]).read_bytes())
    other[18] = 183  # AArch64
    (folder / "of-another-processor.so").write_bytes(other)
    return paths


def test_libraries_of_any_name_are_held_and_under_a_program_that_handles_sigill(held: Any, asking: list[str]) -> None:
    folder = Path(asking[0]).parent
    for options in ([], ["-X", "faulthandler"]):
        done = held(folder, "--", sys.executable, *options, "-c", CALL, "ask", *asking)
        assert (done.returncode, done.stdout) == (0, f"{[1] * len(NAMES)}\n"), done.stderr
    again = held(
        folder, sys.executable, str(SCRIPT), "--libraries", str(folder), sys.executable, "-c", CALL, "ask", asking[0]
    )
    assert (again.returncode, again.stdout) == (0, "[1]\n"), again.stderr


def test_a_library_that_is_cut_short_is_named_and_the_others_are_held(held: Any, asking: list[str]) -> None:
    whole = Path(asking[0])
    data = whole.read_bytes()
    cut = {"code.so": data[: data.index(CPUID) + 2], "data.so": data[:8000], "headers.so": data[:100] + CPUID}
    for name, left in cut.items():
        whole.with_name(name).write_bytes(left)
    done = held(whole.parent, sys.executable, "-c", CALL, "ask", asking[0])
    assert (done.returncode, done.stdout) == (0, "[1]\n"), done.stderr
    told = [line for line in done.stderr.splitlines() if "cut short" in line]
    assert told == [
        f"held-to-avx2: {whole.with_name(name)} is cut short: nothing is laid over it" for name in sorted(cut)
    ]


def test_a_library_that_can_be_loaded_and_not_be_looked_through_is_refused(held: Any, asking: list[str]) -> None:
    """Without its table of sections, which a loader does not need."""
    whole = Path(asking[0])
    bare = whole.with_name("bare.so")
    data = whole.read_bytes()
    bare.write_bytes(data[: int.from_bytes(data[40:48], "little")])
    assert subprocess.run([sys.executable, "-c", CALL, "ask", str(bare)], check=False).returncode == 0
    done = held(whole.parent, "true")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert f"{bare}: " in done.stderr and "install it again, or move it out of the folder" in done.stderr


def test_a_program_ends_by_sigill_as_it_would_have(held: Any, asking: list[str]) -> None:
    folder = Path(asking[0]).parent
    for options in ([], ["-X", "faulthandler"]):
        for program in ([SEND], [CALL, "trap", asking[0]]):
            done = held(folder, sys.executable, *options, "-c", *program)
            assert (done.returncode, done.stdout) == (-signal.SIGILL, ""), done.stderr
            assert ("Fatal Python error: Illegal instruction" in done.stderr) == bool(options)


def test_a_library_that_is_preloaded_already_is_kept(held: Any, asking: list[str]) -> None:
    print_it = "import os; print(os.environ['LD_PRELOAD'])"
    done = held(Path(asking[0]).parent, sys.executable, "-c", print_it, LD_PRELOAD="/no/such.so")
    assert (done.returncode, done.stdout.endswith(":/no/such.so\n")) == (0, True), done.stderr


def test_what_another_start_reads_is_never_half_written(held: Any, asking: list[str], tmp_path: Path) -> None:
    folder = Path(asking[0]).parent
    assert held(folder, "true").returncode == 0
    (before,) = tmp_path.rglob("copies")
    with before.open() as reading:  # a start that is about to lay the copies
        kept = before.stat().st_ino
        assert held(folder, "true").returncode == 0
        assert before.stat().st_ino != kept
        assert len(json.load(reading)) == len(NAMES)


def test_a_cache_that_cannot_be_used_is_told(held: Any, asking: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for cache, expected in (("with space", "has a space or colon"), ("file", "Not a directory (copies are kept below")):
        done = held(Path(asking[0]).parent, "true", XDG_CACHE_HOME=str(tmp_path / cache))
        assert (done.returncode, expected in done.stderr, "Traceback" in done.stderr) == (1, True, False)


def test_help_is_an_answer(held: Any, tmp_path: Path) -> None:
    done = held(tmp_path, "--help")
    assert (done.returncode, done.stdout.startswith("held-to-avx2 "), done.stderr) == (0, True, "")


def test_what_is_no_program_or_no_folder_is_told(held: Any, tmp_path: Path) -> None:
    done = held(tmp_path, "no-such-program")
    assert (done.returncode, "no-such-program: No such file" in done.stderr) == (1, True)
    done = held(tmp_path / "none", "true")
    assert (done.returncode, "none is no folder" in done.stderr) == (1, True)


def test_a_machine_without_the_tools_is_told_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "true"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    assert done.returncode == REFUSED
    assert "not found: gcc, objdump" in done.stderr
