"""A SIMULATION of TensorRT's Python API and of the CUDA runtime, for the plans of the simulated trtexec. No GPU runs.

``install`` makes a Python that has the module ``tensorrt`` and a ``libcudart.so`` whose memory is the host's. The module has
no more than the runner may use; ``tests/contract`` holds those names against a real package of NVIDIA's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CUDART = """
#include <stdlib.h>
#include <string.h>
int cudaMalloc(void **pointer, size_t size) { *pointer = malloc(size); return *pointer ? 0 : 2; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    if (kind != 1 && kind != 2) return 21;
    memcpy(to, from, size);
    return 0;
}
int cudaDeviceSynchronize(void) { return 0; }
"""

MODULE = """
import ctypes, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from simulated_trtexec import HEADER, without_bfloat16
import numpy as np, onnxruntime

__version__ = {version!r}


class Logger:
    WARNING = 2

    def __init__(self, severity):
        sys.stderr.write("SIMULATION of TensorRT's Python API: no GPU ran\\n")


class Context:
    def __init__(self, session):
        self.session, self.places = session, {{}}

    def set_tensor_address(self, name, address):
        self.places[name] = address

    def execute_async_v3(self, stream):
        feeds = {{item.name: self.array(item).copy() for item in self.session.get_inputs()}}
        results = self.session.run(None, feeds)
        for index, item in enumerate(self.session.get_outputs()):
            self.array(item)[...] = results[index]
        return True

    def array(self, item):
        count = int(np.prod(item.shape))
        memory = (ctypes.c_float * count).from_address(self.places[item.name])
        return np.ctypeslib.as_array(memory).reshape(item.shape)


class Engine:
    def __init__(self, session):
        self.session = session
        self.names = [item.name for item in (*session.get_inputs(), *session.get_outputs())]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index):
        return self.names[index]

    def create_execution_context(self):
        return Context(self.session)


class Runtime:
    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, plan):
        header, _, rest = plan.partition(b"\\n")
        if not header.startswith(HEADER):
            return None
        model = without_bfloat16(rest.partition(b"\\n")[2])
        return Engine(onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]))
"""


def install(folder: Path, version: str, compiler: str, *, cuda: bool = True) -> str:
    """The path of a Python with the API of this release; without ``cuda``, with the machine's own runtime, if any."""
    folder.mkdir(parents=True)
    if cuda:
        (folder / "cudart.c").write_text(CUDART, encoding="utf-8")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", str(folder / "libcudart.so"), str(folder / "cudart.c")], check=True
        )
    text = MODULE.format(tests=str(Path(__file__).parent), version=version)
    (folder / "tensorrt.py").write_text(text, encoding="utf-8")
    python = folder / "python3"
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH="{folder}" LD_LIBRARY_PATH="{folder}" exec "{sys.executable}" "$@"\n', encoding="utf-8"
    )
    python.chmod(0o755)
    return str(python)
