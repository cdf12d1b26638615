"""The process that :mod:`.rtx` starts, with a model and a GPU as arguments; it prints one JSON line. This file imports
nothing of the project."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def run(path: Path, gpu: str) -> dict[str, Any]:
    import tensorrt_rtx as trt

    errors: list[str] = []
    warnings: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                warnings.append(message)
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    parsed = bool(parser.parse(path.read_bytes()))
    reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    refusals, doubts = [*reasons, *errors], list(warnings)
    errors.clear()
    warnings.clear()
    engine = None
    if parsed:
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, gpu), 0)
        # the parser holds the weights and the network the graph: both have to outlive the build
        engine = builder.build_serialized_network(network, config)
    return {
        "version": str(trt.__version__),
        "parsed": parsed,
        "built": engine is not None,
        "layers": int(network.num_layers),
        "engine_bytes": int(engine.nbytes) if engine is not None else 0,
        "errors": refusals,
        "warnings": doubts,
        "build_problems": [*errors, *warnings],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(Path(sys.argv[1]), sys.argv[2])) + "\n")
