"""A SIMULATION of TensorRT's Python API and of the CUDA runtime: the CPU answers for the GPU, by ONNX Runtime. No GPU runs.

``install`` makes a Python that has the module ``tensorrt`` and a ``libcudart.so`` whose memory is the host's; its plans are
those of the simulated trtexec, its device is called ``SIMULATED ...``, and times measured on it are the CPU's. The module
has no more than the project uses; tests hold those names against a real package of NVIDIA's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

GPU: Final = "SIMULATED Orin"

CUDART = """
#include <stdlib.h>
#include <string.h>
int cudaMalloc(void **pointer, size_t size) { *pointer = malloc(size); return *pointer ? 0 : 2; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    if (kind != 1 && kind != 2) return 21;
    memcpy(to, from, size);
    return 0;
}
int cudaStreamCreate(void **stream) { *stream = malloc(1); return 0; }
int cudaDeviceSynchronize(void) { return 0; }
int cudaGetDeviceProperties_v2(void *properties, int device) {
    strcpy(properties, "GPU_NAME");
    return device;
}
"""

MODULE = """
import ctypes, enum, json, os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from simulated_trtexec import HEADER, layers_of, open_in_float, without_bfloat16
import numpy as np, onnx

__version__ = {version!r}
FAIL = {fail!r}
TYPES = {{"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}}
BOUND = HEADER + b"{gpu}|" + __version__.encode()

Severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)
TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", ["EXPLICIT_BATCH", "STRONGLY_TYPED"], start=0)
BuilderFlag = enum.Enum("BuilderFlag", ["FP16", "INT8", "TF32"])
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "NONE", "DETAILED"])
LayerInformationFormat = enum.Enum("LayerInformationFormat", ["ONELINE", "JSON"])


def nptype(kind):
    return kind


class ILogger:
    Severity = Severity

    def __init__(self):
        sys.stderr.write("SIMULATION of TensorRT's Python API: no GPU ran\\n")


class Logger(ILogger):
    WARNING = Severity.WARNING

    def __init__(self, severity):
        super().__init__()

    def log(self, severity, message):
        sys.stderr.write(message + "\\n")


class IProfiler:
    pass


class Network:
    def __init__(self, flags):
        self.flags, self.model = flags, b""


class ParserError:
    def __init__(self, text):
        self.text = text

    def desc(self):
        return self.text


class OnnxParser:
    def __init__(self, network, log):
        self.network, self.errors = network, []

    def parse_from_file(self, path):
        self.network.model = Path(path).read_bytes()
        if FAIL == "parser":
            self.errors.append(ParserError("Assertion failed: Scale coefficients must all be positive"))
        return not self.errors

    @property
    def num_errors(self):
        return len(self.errors)

    def get_error(self, index):
        return self.errors[index]


class Config:
    def __init__(self):
        self.flags = {{BuilderFlag.TF32}}
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_memory_pool_limit(self, pool, size):
        assert pool is MemoryPoolType.WORKSPACE and size > 0

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)


class Builder:
    def __init__(self, log):
        self.log = log

    def create_network(self, flags):
        return Network(flags)

    def create_builder_config(self):
        return Config()

    def build_serialized_network(self, network, config):
        with Path(os.environ["SIMULATED_TENSORRT_CALLS"]).open("a") as calls:
            flags = " ".join(sorted(flag.name for flag in config.flags))
            calls.write("build " + json.dumps([network.flags, flags]) + "\\n")
        if FAIL == "builder":
            self.log.log(Severity.ERROR, "Error Code 10: Could not find any implementation for node /block1/conv")
            return None
        self.log.log(Severity.WARNING, "a warning of the simulated builder")
        told = "--fp16" if BuilderFlag.FP16 in config.flags else ""
        if config.profiling_verbosity is not ProfilingVerbosity.DETAILED:
            told += " names-only"
        return BOUND + b"\\n" + told.encode() + b"\\n" + network.model


class Context:
    def __init__(self, engine):
        self.engine, self.places, self.profiler = engine, {{}}, None

    def set_tensor_address(self, name, address):
        self.places[name] = address
        return True

    def execute_async_v3(self, stream):
        session = self.engine.session
        feeds = {{item.name: self.array(item).copy() for item in session.get_inputs()}}
        start = time.perf_counter()
        results = session.run(None, feeds)
        spent_ms = 1e3 * (time.perf_counter() - start)
        for index, item in enumerate(session.get_outputs()):
            self.array(item)[...] = results[index]
        if self.profiler is not None:
            for layer in self.engine.layers:
                self.profiler.report_layer_time(layer["Name"], spent_ms / len(self.engine.layers))
        return True

    def array(self, item):
        kind = np.dtype(TYPES[item.type])
        size = int(np.prod(item.shape)) * kind.itemsize
        memory = (ctypes.c_char * size).from_address(self.places[item.name])
        return np.frombuffer(memory, kind).reshape(item.shape)


class Inspector:
    def __init__(self, engine):
        self.engine = engine

    def get_engine_information(self, form):
        assert form is LayerInformationFormat.JSON
        layers = [layer["Name"] for layer in self.engine.layers] if self.engine.names_only else self.engine.layers
        return json.dumps({{"Layers": layers, "Bindings": []}})


class Engine:
    def __init__(self, told, model):
        self.session = open_in_float(without_bfloat16(model))
        self.layers, self.names_only = layers_of(model, told), "names-only" in told
        self.items = {{item.name: item for item in (*self.session.get_inputs(), *self.session.get_outputs())}}
        self.takes = {{item.name for item in self.session.get_inputs()}}
        self.num_io_tensors = len(self.items)

    def get_tensor_name(self, index):
        return list(self.items)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self.takes else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return tuple(size if isinstance(size, int) else -1 for size in self.items[name].shape)

    def get_tensor_dtype(self, name):
        return TYPES[self.items[name].type]

    def create_execution_context(self):
        return Context(self)

    def create_engine_inspector(self):
        return Inspector(self)


class Runtime:
    def __init__(self, log):
        self.log = log

    def deserialize_cuda_engine(self, plan):
        header, _, rest = plan.partition(b"\\n")
        if not header.startswith(HEADER):
            self.log.log(Severity.ERROR, "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed")
            return None
        told, _, model = rest.partition(b"\\n")
        if FAIL == "foreign":
            self.log.log(Severity.WARNING, "Using an engine plan file across different models of devices is not recommended")
        return Engine(told.decode(), model)
"""


def write_module(folder: Path, version: str, fail: str = "") -> None:
    """``tensorrt.py`` with the metadata of an installed package. ``fail``: ``parser``, ``builder`` or ``foreign``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = MODULE.format(tests=str(Path(__file__).parent), version=version, fail=fail, gpu=GPU)
    (folder / "tensorrt.py").write_text(text, encoding="utf-8")
    about = folder / f"tensorrt-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {version}\n", encoding="utf-8")


def write_cudart(folder: Path, compiler: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cudart.c").write_text(CUDART.replace("GPU_NAME", GPU), encoding="utf-8")
    library = folder / "libcudart.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "cudart.c")], check=True)
    return library


def install(
    folder: Path, version: str, compiler: str, *, cuda: bool = True, fail: str = "", interpreter: str = sys.executable
) -> str:
    """The path of a Python with the API of this release; without ``cuda``, with the machine's own runtime, if any.
    ``calls.log`` beside it has a line for each engine that was built, ``cache`` the engines."""
    write_module(folder, version, fail)
    if cuda:
        write_cudart(folder, compiler)
    python = folder / "python3"
    environment = (
        f'PYTHONPATH="{folder}" LD_LIBRARY_PATH="{folder}" EDGEDEPLOY_CACHE="{folder / "cache"}" '
        f'SIMULATED_TENSORRT_CALLS="{folder / "calls.log"}"'
    )
    python.write_text(f'#!/bin/sh\n{environment} exec "{interpreter}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return str(python)


def builds(folder: Path) -> list[str]:
    """One line per engine that a Python installed in ``folder`` built."""
    calls = folder / "calls.log"
    return calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []
