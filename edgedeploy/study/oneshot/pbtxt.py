"""``config.pbtxt`` of a Triton model repository: the text format of ``ModelConfig`` in Triton's ``model_config.proto``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

TYPES: Final[Mapping[str, str]] = {
    **{"float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64", "bool": "TYPE_BOOL"},
    **{f"{kind}{bits}": f"TYPE_{kind.upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}
"""numpy's names of types to those of Triton's ``DataType``."""

NO_AXES: Final = "Triton takes no tensors without axes from a model that makes no batches"
"""Said of a scalar: its validation refuses both empty dims and a reshape to them there."""


@dataclass(frozen=True)
class Port:
    """An input or output: ``dims`` with -1 for an open size, without the axis of cases where the server makes batches."""

    name: str
    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class ModelConfig:
    """``max_batch`` 0 leaves batches to the client; else requests wait at most ``max_wait_us`` for others, and ``queue`` of
    them wait at most. ``parameters`` are the backend's own."""

    name: str
    backend: str
    file: str
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    version: int = 1
    instances: int = 1
    max_batch: int = 0
    max_wait_us: int = 0
    queue: int = 0
    parameters: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"name: {quoted(self.name)}"
        yield f"backend: {quoted(self.backend)}"
        yield f"default_model_filename: {quoted(self.file)}"
        yield f"max_batch_size: {self.max_batch}"
        for key, ports in (("input", self.inputs), ("output", self.outputs)):
            for port in ports:
                yield f"{key} {{ name: {quoted(port.name)} {form(port)} }}"
        yield f"version_policy {{ specific {{ versions: [ {self.version} ] }} }}"
        yield f"instance_group {{ count: {self.instances} kind: KIND_CPU }}"
        if self.max_batch:
            queue = f"default_queue_policy {{ max_queue_size: {self.queue} }}" if self.queue else ""
            yield f"dynamic_batching {{ max_queue_delay_microseconds: {self.max_wait_us} {queue} }}"
        for key, value in self.parameters.items():
            yield f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}"


def form(port: Port) -> str:
    """A port without dims is one number a case: the server asks for dims, and for a reshape that takes them away."""
    dims = f"dims: [ {', '.join(map(str, port.dims))} ]" if port.dims else "dims: [ 1 ] reshape { shape: [ ] }"
    return f"data_type: {TYPES[port.dtype]} {dims}"


def quoted(value: str) -> str:
    """A text of the protocol buffers' text format; JSON's escapes are among its own."""
    return json.dumps(value)
