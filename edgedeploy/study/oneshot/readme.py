"""The README of an exported artifact: what it is, and three lines that load it with the runtime alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.records.units import human
from edgedeploy.runtime.sessions.openvino import compile_properties

_INSTALL: Final[Mapping[str, str]] = {
    "onnxruntime": "pip install onnxruntime",
    "openvino": "pip install openvino",
    "litert": "pip install ai-edge-litert",
}


def readme(artifact: Artifact, facts: Mapping[str, str], threads: int) -> str:
    """Markdown. ``facts`` are lines by what they are about; ``threads`` those that it was measured with."""
    rows = {
        "target": f"{artifact.target} (built with {', '.join(f'{n} {v}' for n, v in artifact.built_with) or 'nothing'})",
        "precision": artifact.precision,
        "size": human(artifact.size_bytes, "bytes"),
        "inputs": _specs(artifact.inputs),
        "outputs": _specs(artifact.outputs),
        **facts,
    }
    lines = [f"# {artifact.entry}: {artifact.target}, {artifact.precision}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(text)} |" for name, text in rows.items()]
    lines += ["", "## Load it", "", *_loading(artifact, threads), "", "## Files", ""]
    product = ", ".join(f"`{file.name}`" for file in artifact.files)
    lines += [
        f"- A product needs {product}, and the runtime.",
        "- `edgedeploy-artifact.json` says how it was built. `reference/` holds the float model, which `edgedeploy measure`"
        " compares with and a product does not need.",
        "- `sha256sum -c SHA256SUMS` says whether a file has changed. Nothing here is signed.",
    ]
    return "\n".join(lines) + "\n"


def loading_code(artifact: Artifact, threads: int) -> str | None:
    """Three lines of Python that load and run it in this folder; None where this version has none for the target.
    ``inputs`` stands for arrays by input name."""
    if artifact.target == "onnxruntime":
        return (
            "import onnxruntime\n"
            f'session = onnxruntime.InferenceSession({artifact.entry!r}, providers=["CPUExecutionProvider"])\n'
            "outputs = session.run(None, inputs)"
        )
    if artifact.target == "openvino":
        properties = compile_properties(dict(artifact.settings), threads)
        return (
            "import openvino\n"
            f'model = openvino.Core().compile_model({artifact.entry!r}, "CPU", {properties!r})\n'
            "outputs = model(inputs)"
        )
    if artifact.target == "litert":
        return (
            "from ai_edge_litert.interpreter import Interpreter\n"
            f"runner = Interpreter(model_path={artifact.entry!r}, num_threads={threads}).get_signature_runner()\n"
            "outputs = runner(**inputs)"
        )
    return None


def layouts_of(artifact: Artifact) -> dict[str, str]:
    """Outputs that the file leaves in another order of dimensions than the reference's, and the axes that put them right."""
    begins = "layout:"
    return {name.removeprefix(begins): axes for name, axes in artifact.settings if name.startswith(begins)}


def _loading(artifact: Artifact, threads: int) -> list[str]:
    code = loading_code(artifact, threads)
    if artifact.target == "tensorrt":
        return [
            "On the device, with its own TensorRT: an engine fits one device and one release.",
            *("", "```sh", f"trtexec --onnx={artifact.entry} --saveEngine=model.engine", "```"),
        ]
    if code is None:
        settings = f" with {dict(artifact.settings)}" if artifact.settings else ""
        return [f"Open `{artifact.entry}` with the runtime of target `{artifact.target}`{settings}."]
    names = ", ".join(f"`{spec.name}`" for spec in artifact.inputs)
    lines = [f"`{_INSTALL[artifact.target]}`; `inputs` maps {names} to numpy arrays of the shapes above.", ""]
    lines += ["```python", *code.splitlines(), "```"]
    for name, axes in layouts_of(artifact).items():
        order = ", ".join(axes.split(","))
        lines += [
            "",
            f"Output `{name}` comes in another order: `outputs[{name!r}].transpose({order})` has the shape above.",
        ]
    if artifact.target == "onnxruntime" and artifact.settings:
        lines += ["", f"It was measured with the session configuration entries {dict(artifact.settings)}."]
    return lines


def _specs(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"`{spec.name}` {spec.dtype} {list(spec.shape)}" for spec in specs)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
