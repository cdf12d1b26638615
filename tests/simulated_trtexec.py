"""A SIMULATION of ``trtexec`` for boards that the tests do not have. No GPU runs: its times are made up.

It keeps the flags of its release (an unknown one ends it, as in the real one), prints that release's report, writes the same
export files, and answers ``--exportOutput`` by running the ONNX file, which is all that its plan holds, in ONNX Runtime.
Each run says SIMULATION first. ``install`` puts it on a path as ``trtexec`` with a configuration file beside it.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HEADER = b"SIMULATED PLAN "

FLAGS = {
    "any": "--onnx --saveEngine --loadEngine --noTF32 --useDLACore --allowGPUFallback --iterations --duration --warmUp "
    "--avgRuns --percentile --useSpinWait --useCudaGraph --noDataTransfers --exportTimes --exportProfile --dumpProfile "
    "--separateProfileRun --loadInputs --exportOutput",
    "8.0": "--fp16 --int8 --workspace --nvtxMode",
    "8.2": "--fp16 --int8 --workspace --nvtxMode --exportLayerInfo",
    "8.5": "--fp16 --int8 --workspace --memPoolSize --profilingVerbosity --exportLayerInfo",
    "10": "--fp16 --int8 --stronglyTyped --memPoolSize --profilingVerbosity --exportLayerInfo",
    "11": "--memPoolSize --profilingVerbosity --exportLayerInfo",
}


def install(folder: Path, **settings: Any) -> str:
    """Write the program and its configuration; the path to call. Settings: ``code`` (``8502``), ``build``, ``gpu``,
    ``capability``, ``noise`` (of the times), ``fail`` (a name that :func:`main` knows)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "simulation.json").write_text(json.dumps(settings), encoding="utf-8")
    program = folder / "trtexec"
    program.write_text(f"#!{sys.executable}\n{Path(__file__).read_text(encoding='utf-8')}", encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def info(text: str) -> None:
    say(f"[01/01/2026-00:00:00] [I] {text}")


def complain(level: str, text: str) -> None:
    sys.stderr.write(f"[01/01/2026-00:00:00] [{level}] {text}\n")


def branch(code: str) -> str:
    number = int(code)
    if number >= 110000:
        return "11"
    if number >= 100000:
        return "10"
    return "8.5" if number >= 8400 else "8.2" if number >= 8200 else "8.0"


def spread(values: list[float], several: bool) -> str:
    rising = sorted(values)
    count = len(rising)
    text = f"min = {rising[0]:g} ms, max = {rising[-1]:g} ms, mean = {sum(rising) / count:g} ms, "
    middle = (rising[(count - 1) // 2] + rising[count // 2]) / 2
    shares = (90, 95, 99) if several else (99,)
    tails = [f"percentile({share}%) = {rising[min(count - 1, count * share // 100)]:g} ms" for share in shares]
    return text + f"median = {middle:g} ms, " + ", ".join(tails)


def report(times: list[float], release: str) -> None:
    several = release not in ("8.0", "8.2")
    info(f"Timing trace has {len(times)} queries over {sum(times) / 1e3:g} s")
    info("")
    info("=== Performance summary ===")
    info(f"Throughput: {len(times) / sum(times) * 1e3:g} qps")
    info(f"Latency: {spread(times, several)}")
    if not several:
        info(f"End-to-End Host Latency: {spread([t + 0.01 for t in times], several)}")
    for name in ("Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency"):
        values = times if name.startswith("GPU") else [t * 0.1 for t in times] if name.startswith("Enq") else [0.0, 0.0]
        info(f"{name}: {spread(values, several)}")
    info(f"Total Host Walltime: {sum(times) / 1e3:g} s")
    info(f"Total GPU Compute Time: {sum(times) / 1e3:g} s")
    mean = sum(times) / len(times)
    scatter = (sum((spent - mean) ** 2 for spent in times) / len(times)) ** 0.5 / mean * 100
    if several and scatter > 1:
        complain("W", f"* GPU compute time is unstable, with coefficient of variance = {scatter:g}%.")


def export_times(path: str, times: list[float], warmup_ms: float, release: str) -> None:
    """Up to 8.2 the warm-up is exported too; those queries are twice as slow here, so that nobody misses them."""
    rows = []
    clock = 0.0 if release in ("8.0", "8.2") else warmup_ms
    series = [2 * times[0]] * int(warmup_ms // (2 * times[0])) if clock == 0.0 else []
    clock = 0.0 if series else warmup_ms
    for index, spent in enumerate([*series, *times]):
        clock = max(clock, warmup_ms) if index >= len(series) else clock
        row = {"startEnqMs": clock, "endEnqMs": clock, "startH2dMs": clock, "endH2dMs": clock, "startComputeMs": clock}
        row |= {"endComputeMs": clock + spent, "startD2hMs": clock + spent, "endD2hMs": clock + spent}
        row |= {"h2dMs": 0, "computeMs": spent, "d2hMs": 0, "latencyMs": spent}
        if series:
            row["endToEndMs"] = spent
        rows.append(row)
        clock += spent
    Path(path).write_text(json.dumps(rows), encoding="utf-8")


def layers_of(model: bytes, flags: str) -> list[dict[str, Any]]:
    """Compute layers in the precision that they run in: quantized ones in int8, the others as the file's types say, float32
    ones in float16 where the build had ``--fp16`` among its ``flags``."""
    import onnx

    kinds = {"Conv": "Convolution", "ConvTranspose": "Deconvolution", "Gemm": "Gemm", "MatMul": "MatrixMultiply"}
    graph = onnx.load_from_string(model).graph
    names = {onnx.TensorProto.FLOAT: "Float", onnx.TensorProto.FLOAT16: "Half", onnx.TensorProto.BFLOAT16: "BFloat16"}
    types = {tensor.name: names.get(tensor.data_type, "") for tensor in graph.initializer}
    types.update({node.output[0]: "Int8" for node in graph.node if node.op_type == "DequantizeLinear"})
    if "--fp16" in flags:
        types = {name: "Half" if kind == "Float" else kind for name, kind in types.items()}
    return [
        {
            "Name": n.name,
            "LayerType": "Cask",
            "ParameterType": kinds[n.op_type],
            "Weights": {"Type": types.get(n.input[1], "Float")},
        }
        for n in graph.node
        if n.op_type in kinds
    ]


def without_bfloat16(model: bytes) -> bytes:
    """ONNX Runtime has no kernels for it on a CPU: float32 with the same weights."""
    import numpy as np
    import onnx

    proto = onnx.load_from_string(model)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.BFLOAT16:
            value = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    for node in proto.graph.node:
        for item in node.attribute:
            if node.op_type == "Cast" and item.i == onnx.TensorProto.BFLOAT16:
                item.i = onnx.TensorProto.FLOAT
    return bytes(proto.SerializeToString())


def open_in_float(model: bytes) -> Any:
    """Quantized values, float products: a GPU adds int8 in 32 bits, some CPUs saturate at 16."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def answer(model: bytes, inputs: str, path: str) -> None:
    import numpy as np

    session = open_in_float(without_bfloat16(model))
    files = dict(pair.rsplit(":", 1) for pair in inputs.split(","))
    feeds = {item.name: np.fromfile(files[item.name], np.float32).reshape(item.shape) for item in session.get_inputs()}
    names = [item.name for item in session.get_outputs()]
    rows = [
        {"name": name, "dimensions": "x".join(map(str, value.shape)), "values": value.ravel().tolist()}
        for name, value in zip(names, session.run(names, feeds), strict=True)
    ]
    Path(path).write_text(json.dumps(rows), encoding="utf-8")


def main(arguments: list[str]) -> int:
    settings = json.loads((HERE / "simulation.json").read_text(encoding="utf-8"))
    release, fail = branch(settings["code"]), settings.get("fail")
    given = {name: value for name, _, value in (argument.partition("=") for argument in arguments)}
    build = f" [b{settings['build']}]" if release in ("10", "11") else ""
    title = f"TensorRT.trtexec [TensorRT v{settings['code']}]{build} # trtexec {' '.join(arguments)}"
    say("SIMULATION of trtexec: no GPU ran, its numbers are made up")
    say(f"&&&& RUNNING {title}")
    with (HERE / "calls.log").open("a", encoding="utf-8") as calls:
        calls.write(" ".join(arguments) + "\n")

    def ended(passed: bool) -> int:
        say(f"&&&& {'PASSED' if passed else 'FAILED'} {title}")
        return 0 if passed else 1

    if "--version" in given:
        complain("E", "Model missing or format not recognized")
        return ended(False)
    unknown = [name for name in given if name not in f"{FLAGS['any']} {FLAGS[release]}".split()]
    for name in unknown:
        complain("E", f"Unknown option: {name} {given[name]}")
    if unknown:
        return ended(False)
    info("=== Device Information ===")
    info(f"Selected Device: Simulated {settings['gpu']}")
    info(f"Compute Capability: {settings['capability']}")
    bound = f"{settings['gpu']}|{settings['code']}".encode()
    if "--onnx" in given:
        if fail == "parser":
            complain("E", "[TRT] ModelImporter.cpp:777: ERROR: In function QuantDequantLinearHelper:")
            complain("E", 'Assertion failed: scaleAllPositive && "Scale coefficients must all be positive"')
            return ended(False)
        if "--useDLACore" in given:
            complain(
                "W", "[TRT] Layer '/up/Resize' (RESIZE): Unsupported on DLA. Switching this layer's device type to GPU."
            )
            info("[TRT] ---------- Layers Running on DLA ----------")
            info("[TRT] [DlaLayer] {ForeignNode[/down/Conv.../mask/Conv]}")
            info("[TRT] ---------- Layers Running on GPU ----------")
            info("[TRT] [GpuLayer] RESIZE: /up/Resize")
        model = Path(given["--onnx"]).read_bytes()
        flags = " ".join(name for name in given if name in ("--fp16", "--int8", "--stronglyTyped"))
        Path(given["--saveEngine"]).write_bytes(HEADER + bound + b"\n" + flags.encode() + b"\n" + model)
        info("Engine built in 1.0 sec.")
    else:
        plan = Path(given["--loadEngine"]).read_bytes()
        header, _, rest = plan.partition(b"\n")
        if header != HEADER + bound or fail == "broken":
            complain("E", "Error[6]: IRuntime::deserializeCudaEngine: incompatible plan")
            complain("E", "Engine deserialization failed")
            return ended(fail == "broken")
        name, _, model = rest.partition(b"\n")
        flags = name.decode()
    noise = random.Random(1)
    count = max(int(given.get("--iterations", 10)), 10)
    times = [round(2.0 * (1 + settings.get("noise", 0.002) * noise.uniform(-1, 1)), 5) for _ in range(count)]
    if "--exportProfile" in given:
        layers = layers_of(model, flags)
        Path(given["--exportLayerInfo"]).write_text(json.dumps({"Layers": layers, "Bindings": []}), encoding="utf-8")
        share = 100 / len(layers)
        rows = [{"name": layer["Name"], "timeMs": 1.0, "averageMs": 0.1, "percentage": share} for layer in layers]
        if release not in ("8.0", "8.2"):
            rows = [{**row, "medianMs": 0.09} for row in rows]
        Path(given["--exportProfile"]).write_text(json.dumps([{"count": 10}, *rows]), encoding="utf-8")
    if "--exportTimes" in given:
        export_times(given["--exportTimes"], times, float(given.get("--warmUp", 200)), release)
    if "--exportOutput" in given:
        answer(model, given["--loadInputs"], given["--exportOutput"])
    report(times, release)
    return ended(True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
