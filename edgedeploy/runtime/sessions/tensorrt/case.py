"""Runs one case through an engine by TensorRT's Python API. A standalone script for the board's Python (3.8 or newer).

    python3 tensorrt_case.py                one JSON line: the release of the API
    python3 tensorrt_case.py CASE.json      reads the input files that CASE names, writes its output files

CASE holds ``plan`` and, for ``inputs`` and ``outputs``, lists of ``{"name", "path", "bytes"}``: raw arrays in the
layout of the model. The API with tensor names came with TensorRT 8.5. Uses the standard library, and the CUDA runtime
that TensorRT itself needs for the GPU's memory. Any failure ends in an exit status other than 0.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

CUDART = ("libcudart.so", "/usr/local/cuda/lib64/libcudart.so")
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
PROPERTIES = ("cudaGetDeviceProperties_v2", "cudaGetDeviceProperties")
DEFAULT_STREAM = 0


class Cuda:
    """The CUDA calls that are needed; each raises ``RuntimeError`` when it fails."""

    def __init__(self) -> None:
        for name in CUDART:
            try:
                self._library = ctypes.CDLL(name)
                return
            except OSError:
                continue
        raise RuntimeError("no CUDA runtime: looked for " + ", ".join(CUDART))

    def allocate(self, size: int) -> int:
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
        return int(pointer.value or 0)

    def device_name(self) -> str:
        """The GPU's name. The properties structure begins with it; CUDA 12 renamed the call when the structure grew."""
        properties = ctypes.create_string_buffer(1 << 14)
        name = next((name for name in PROPERTIES if hasattr(self._library, name)), PROPERTIES[0])
        self._call(name, properties, 0)
        return properties.value.decode("utf-8", errors="replace")

    def upload(self, pointer: int, data: Any, size: int) -> None:
        """``data`` is bytes, or the address of as many."""
        self._call("cudaMemcpy", ctypes.c_void_p(pointer), data, ctypes.c_size_t(size), TO_DEVICE)

    def download(self, pointer: int, data: Any, size: int) -> None:
        """Into ``data``: a buffer, or the address of one."""
        self._call("cudaMemcpy", data, ctypes.c_void_p(pointer), ctypes.c_size_t(size), TO_HOST)

    def stream(self) -> int:
        """A new stream: on the default stream, TensorRT would also wait for other work."""
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        return int(stream.value or 0)

    def wait(self) -> None:
        self._call("cudaDeviceSynchronize")

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} failed with CUDA error {status}")


def run(case: Any) -> None:
    import tensorrt as trt

    cuda = Cuda()
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine(Path(case["plan"]).read_bytes())
    if engine is None:
        raise RuntimeError("TensorRT does not load the engine")
    context = engine.create_execution_context()
    names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    asked = {tensor["name"] for tensor in (*case["inputs"], *case["outputs"])}
    if names != asked:
        raise RuntimeError(f"the engine has the tensors {sorted(names)}, asked were {sorted(asked)}")
    places = {}
    for tensor in (*case["inputs"], *case["outputs"]):
        places[tensor["name"]] = cuda.allocate(tensor["bytes"])
        context.set_tensor_address(tensor["name"], places[tensor["name"]])
    for tensor in case["inputs"]:
        cuda.upload(places[tensor["name"]], Path(tensor["path"]).read_bytes(), tensor["bytes"])
    if not context.execute_async_v3(DEFAULT_STREAM):
        raise RuntimeError("TensorRT does not run the engine")
    cuda.wait()
    for tensor in case["outputs"]:
        data = ctypes.create_string_buffer(tensor["bytes"])
        cuda.download(places[tensor["name"]], data, tensor["bytes"])
        Path(tensor["path"]).write_bytes(data.raw)


def main() -> None:
    if len(sys.argv) == 2:
        run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
        return
    import tensorrt as trt

    Cuda().allocate(1)  # a runtime may be there without a GPU or a driver
    sys.stdout.write(json.dumps({"tensorrt": str(trt.__version__)}) + "\n")


if __name__ == "__main__":
    main()
