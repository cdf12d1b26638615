"""``edgedeploy init``: a commented study file from a model, data and a board, which loads as it is."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgedeploy.boards.arm.board import CLOCKS
from edgedeploy.errors import DataError, SpecError, Unsupported
from edgedeploy.files import PARTIAL_PREFIX, write_atomic
from edgedeploy.interfaces.target import Calibrating, Target
from edgedeploy.interfaces.task import Split, Task
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import Clock
from edgedeploy.records.variant import PRECISIONS
from edgedeploy.spec.boards import DEFAULT_PORT, BoardTable
from edgedeploy.study.oneshot.desk import target_named
from edgedeploy.study.oneshot.model import CHECKPOINTS, for_command, take
from edgedeploy.study.preflight import open_and_probe, require_runtimes
from edgedeploy.targets.registry import find_targets, sessions_of
from edgedeploy.tasks.images.files import image_files
from edgedeploy.tasks.load import load_task
from edgedeploy.tasks.onnx.inputs import Preprocessing, image_layout
from edgedeploy.tasks.onnx.task import SOURCES
from edgedeploy.tasks.splitting import SPLIT_WORDS

SEARCHED: Final = ("float32", "bfloat16", "int8")
"""Precisions that a new study begins with, as far as its targets build them."""

USUAL_TARGETS: Final = ("onnxruntime", "openvino")
CALIBRATES: Final = ("minmax", "percentile")


@dataclass(frozen=True)
class Beginning:
    """What a new study is made of. ``task`` is ``file.py:factory`` for a model in PyTorch, whose weights may be ``model``;
    ``images`` the table of how image files become inputs, ``shapes`` those of inputs that an ONNX file leaves open. What is
    None and needed is missing still."""

    out: Path
    board: BoardTable | None = None
    model: Path | None = None
    data: Path | None = None
    task: str | None = None
    name: str = ""
    targets: tuple[str, ...] = ()
    images: Mapping[str, Any] | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)


def known_shapes(
    model: Path, shapes: Mapping[str, Sequence[int]]
) -> tuple[dict[str, tuple[int, ...]], Sequence[TensorSpec]]:
    """``shapes``, and with them those that the file's own sizes and a batch of 1 decide; and the model's inputs.

    Raises ``Unsupported`` for the first input whose shape has to be asked.
    """
    known = {name: tuple(shape) for name, shape in shapes.items()}
    while True:
        try:
            return known, take(model, known).inputs
        except Unsupported as exc:
            shape = exc.open_shape
            if shape is None or shape.decided is None or shape.name in known:
                raise
            known[shape.name] = shape.decided


def open_shape(model: Path, shapes: Mapping[str, Sequence[int]]) -> Unsupported | None:
    """What says which input's shape has to be asked next, None when all are known. Raises ``DataError``, ``SpecError`` and
    ``Unsupported`` where the shapes, or the model itself, are wrong."""
    try:
        known_shapes(model, shapes)
    except Unsupported as exc:
        if exc.open_shape is None or exc.open_shape.name in shapes:
            raise
        return exc
    return None


def targets_of(made_of: Beginning) -> list[Target]:
    """The targets that were named, or those usual ones that work here. Raises ``SpecError`` and ``TargetUnavailable``."""
    return [target_named(name, "float32") for name in made_of.targets] or _usual_targets()


def check_model(model: Path) -> None:
    """Raises ``SpecError``, ``DataError`` and ``Unsupported`` for what no study can be made of; shapes may be open."""
    _require_network(model)
    open_shape(model, {})


def check_data(data: Path, inputs: Sequence[TensorSpec]) -> None:
    """Raises ``DataError`` and ``SpecError`` for a place without cases, or with images for a model that takes none."""
    places = list(_split_folders(data).values()) or [data]
    if not holds_images(data):
        return
    if not any(image_files(place) for place in places):
        found = "there is neither an image nor an .npy or .npz file in it"
        raise DataError(f"--data {data}", found, "Name a folder that has some, or an .npz file")
    if len(inputs) != 1:
        found = f"it holds images, and the model has the inputs {', '.join(spec.name for spec in inputs)}"
        raise SpecError(f"--data {data}", found, "Give them as an .npz of arrays")
    image_layout(inputs[0])


def check_images(table: Mapping[str, Any], inputs: Sequence[TensorSpec]) -> None:
    """Raises ``SpecError`` for a table by which images do not become the model's only input."""
    try:
        Preprocessing.from_table(table).steps(inputs[0])
    except SpecError as exc:
        raise for_command(exc, Path(), "--data") from None


def check_task(made_of: Beginning) -> None:
    """Read the model, or the task's code, and every case as the study will. Raises ``EdgeDeployError``."""
    if made_of.task is not None:
        _python_task(made_of)
        return
    table = tomllib.loads("\n".join(_onnx_task(made_of)))["task"]
    try:
        load_task(table, made_of.out.absolute().parent)
    except (SpecError, DataError) as exc:
        raise (for_command(exc, made_of.data, "--data") if made_of.data else exc) from None


def check_board(board: BoardTable, made_of: Beginning) -> None:
    """Raises ``BoardError`` where the board does not answer, ``TargetUnavailable`` where it lacks a runtime."""
    targets = {target.name: target for target in targets_of(made_of)}
    _, info = open_and_probe(board, sessions_of(list(targets)))
    require_runtimes(info, targets)


def holds_images(data: Path) -> bool:
    """A folder without arrays, its own or its folders', is one of images."""
    arrays = (".npy", ".npz")
    return data.is_dir() and not any(path.suffix in arrays for path in [*data.iterdir(), *data.glob("*/*")])


def study_text(made_of: Beginning) -> str:
    """The study file. Raises ``SpecError``, ``DataError``, ``TargetUnavailable`` and ``Unsupported``."""
    targets = targets_of(made_of)
    if made_of.board is None:
        raise SpecError("--board", "it is missing", "Name one, such as --board local or --board user@host")
    if made_of.task is None and made_of.model is None:
        raise SpecError("--model", "it is missing", "Name an .onnx file, or --task file.py:factory")
    if made_of.task is None:
        task, goal, task_keys = _onnx_task(made_of), list(_AGREEMENT), _calibrations(targets)
    else:
        task, loaded = _python_task(made_of)
        goal, task_keys = _own_metric(next(iter(loaded.metrics))), [*_WIDTHS, *_architecture(loaded)]
    parts = [
        "# Written by `edgedeploy init`. Every key: docs/reference/keys.md, `edgedeploy schema` for editors.",
        "[study]",
        f"name = {_text(made_of.name or _name(made_of))}",
        "seed = 0 # decides every random choice of the study",
        f"targets = {_list([target.name for target in targets])} # the first one's float32 model runs beside every variant",
        "",
        *task,
        "",
        *_board(made_of.board),
        "",
        "[space] # what is searched: each key with the values to try",
        f"precision = {_list(_precisions(targets))}",
        *task_keys,
        "",
        *goal,
        "",
        *_cost(made_of.board),
        "",
        *_EVIDENCE,
        "",
        "[budget]",
        "trials = 12 # variants that are built and measured, at most",
        'wall_clock = "1 h" # the search ends then, with what it has',
        "",
        "# [search]",
        "# remeasure = 0.1 # share of that time for measuring again what the noise of times leaves open on the front",
    ]
    return "\n".join(parts) + "\n"


@contextmanager
def written(out: Path, text: str) -> Iterator[None]:
    """The study file beside its place, whose folder is there for relative paths. It gets there when the block ends, and is
    removed when the block raises. Raises ``SpecError`` where it cannot be written."""
    part = out.with_name(f"{PARTIAL_PREFIX}{out.name}")
    try:
        write_atomic(part, text.encode())
    except OSError as exc:
        raise SpecError(f"--out {out}", exc.strerror or str(exc), "Choose another path") from None
    try:
        yield
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


_AGREEMENT: Final = (
    "# Without labels: agreement with the float model's outputs, which is not accuracy.",
    "[[objectives]]",
    'metric = "reference_rel_l2" # relative L2 distance, worst output',
    "min_effect = 0.001 # a smaller difference counts as none",
)

_COSTS: Final[Mapping[Clock, tuple[str, ...]]] = {
    "wall": (
        "[[objectives]]",
        'metric = "latency_ratio" # median latency over the float32 baseline\'s, interleaved with it',
        "min_effect = 0.02",
    ),
    "virtual": (
        "[[objectives]]",
        'metric = "virtual_ns" # instructions of one inference, 1 ns each: an emulated processor has no time of a board',
    ),
    "none": (
        "[[objectives]]",
        'metric = "size_bytes" # of the artifact: an emulated processor has no time of a board',
    ),
}

_EVIDENCE: Final = (
    "[evidence] # what has to be shown before a variant may be shipped in the float baseline's place",
    "margin = 0.01 # in units of the first objective, on average over the cases",
    "lost_case = 0.1 # a case that loses more counts as lost; none of the measured ones may",
    "# lost_share = 0.05 # share of all cases that may be lost, as the exact 95 % bound has it: none of 59",
)

_WIDTHS: Final = (
    "# width = [1.0, 0.75, 0.5] # share of channels that pruning keeps; needs a task that can be trained",
)


def _usual_targets() -> list[Target]:
    found = [plugin for plugin in find_targets() if plugin.name in USUAL_TARGETS and plugin.target is not None]
    ready = [plugin.load() for plugin in found if plugin.readiness().ready]
    if not ready:
        raise SpecError("--target", "none of the usual targets is installed here", "pip install 'edgedeploy[study]'")
    return ready


def _onnx_task(made_of: Beginning) -> list[str]:
    assert made_of.model is not None
    _require_network(made_of.model)
    if made_of.data is None:
        raise SpecError("--data", "it is missing", "Name a folder of images, .npy or .npz files, or an .npz file")
    shapes, inputs = known_shapes(made_of.model, made_of.shapes)
    lines = [
        "[task]",
        'kind = "onnx" # a float model as it is: nothing is trained or pruned',
        f"model = {_path(made_of, made_of.model)}",
        "",
        "[task.options]",
        *_splits(made_of, made_of.data),
    ]
    if shapes:
        sizes = ", ".join(f"{_text(name)} = {list(shape)}" for name, shape in shapes.items())
        lines.append(f"shapes = {{ {sizes} }} # of inputs whose shape the model leaves open")
    lines += [f"# input {spec.name}: {spec.dtype} {list(spec.shape)}" for spec in inputs]
    if made_of.images is not None:
        lines += ["", "[task.options.preprocessing] # (pixel - mean) / std, black 0 to white 255"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in made_of.images.items()]
    return lines


def _require_network(model: Path) -> None:
    if model.suffix in CHECKPOINTS:
        found = "it is a checkpoint, and only Python code knows the network that it belongs to"
        remedy = "Add --task file.py:factory; `edgedeploy recipe my_task.py` prints one to start from"
        raise SpecError(f"--model {model}", found, remedy)


def _split_folders(data: Path) -> dict[Split, Path]:
    """The folder's own splits; empty where it has none. Raises ``DataError`` for a folder that has some of them only."""
    if not data.exists():
        raise DataError(f"--data {data}", "there is no such file or folder", "Correct the path")
    named: dict[Split, Path] = {}
    for path in sorted(data.iterdir()) if data.is_dir() else ():
        split = SPLIT_WORDS.get(path.name.lower())
        if path.is_dir() and split is not None:
            named.setdefault(split, path)
    if "train" in named:
        named.setdefault("calibration", named["train"])
    missing = [split for split in SOURCES if split not in named]
    if 0 < len(missing) < len(SOURCES):
        found = f"it has folders of splits, but none for {', '.join(missing)}"
        raise DataError(f"--data {data}", found, "Add folders calibration, selection and confirmation, or none of them")
    return {} if missing else {split: named[split] for split in SOURCES}


def _splits(made_of: Beginning, data: Path) -> list[str]:
    """The keys that name the cases: of a folder's own splits, or of one place for all."""
    named = _split_folders(data)
    if named:
        return [f"{split} = {_path(made_of, place)}" for split, place in named.items()]
    return [
        "# One place for all cases, by name: the first quarter calibrates, the next half selects, the last confirms.",
        "# A patient must not be on two sides: then name folders for calibration, selection and confirmation instead.",
        f"data = {_path(made_of, data)}",
    ]


def _own_metric(metric: str) -> list[str]:
    return [
        "[[objectives]]",
        f"metric = {_text(metric)} # of the task's own metrics",
        "# min_effect = 0.005 # a smaller difference counts as none, in the metric's own unit",
    ]


def _cost(board: BoardTable) -> tuple[str, ...]:
    """What a variant costs, as far as the board can tell: an emulated processor takes no time."""
    counted: Mapping[str, Clock] = {str(machine): clock for machine, clock in CLOCKS.items()}
    return _COSTS["wall" if board.machine is None else counted.get(board.machine, "none")]


def _architecture(task: Task) -> list[str]:
    """The task's own parameters, to be taken in: each value of them is a network of its own, which is trained."""
    return [
        f"# {_key(name)} = [{', '.join(json.dumps(value, ensure_ascii=False) for value in values)}] "
        "# of the task's architecture; the baseline's first"
        for name, values in task.architecture.items()
        if len(values) > 1
    ]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _python_task(made_of: Beginning) -> tuple[list[str], Task]:
    """The lines of the task, and the task, which has a metric at least."""
    place, colon, factory = str(made_of.task).rpartition(":")
    if not colon or not place.endswith(".py"):
        found = "it names no file and factory"
        raise SpecError(f"--task {made_of.task}", found, "Write --task file.py:factory")
    named = f"{_relative(made_of, Path(place))}:{factory}"
    loaded = load_task({"kind": "python", "object": named}, made_of.out.absolute().parent)
    if not loaded.metrics:
        raise SpecError(f"--task {made_of.task}", "the task has no metric", "Name one in its `metrics`")
    lines = [
        "[task]",
        'kind = "python" # `edgedeploy recipe my_task.py` prints a commented one',
        f"object = {_text(named)}",
    ]
    if made_of.model is not None:
        lines.append(f"checkpoint = {_path(made_of, made_of.model)} # the trained weights: the baseline is not trained")
    return lines, loaded


def _board(board: BoardTable) -> list[str]:
    kind = f"emulated:{board.machine}" if board.machine else board.kind
    lines = ["[[boards]]", f"name = {_text(board.name)}", f"kind = {_text(kind)}"]
    if board.host is not None:
        lines.append(f"host = {_text(board.host)} # ~/.ssh/config is honoured; the host key must be known")
    lines += [f"port = {board.port}"] if board.port != DEFAULT_PORT else []
    lines += [f"user = {_text(board.user)}"] if board.user is not None else []
    lines += [f"python = {_text(board.python)} # on the board, with numpy and the runtimes"] if board.python else []
    return lines


def _precisions(targets: Sequence[Target]) -> list[str]:
    built = {precision for target in targets for precision in target.precisions}
    return [precision for precision in PRECISIONS if precision in SEARCHED and precision in built]


def _calibrations(targets: Sequence[Target]) -> list[str]:
    offered = {way for target in targets if isinstance(target, Calibrating) for way in target.calibrations}
    ways = [way for way in CALIBRATES if way in offered]
    return [f"calibration = {_list(ways)} # how int8 chooses its ranges"] if len(ways) > 1 else []


def _name(made_of: Beginning) -> str:
    stem = made_of.model.stem if made_of.model else Path(str(made_of.task).rpartition(":")[0]).stem
    return re.sub(r"[^A-Za-z0-9 ._-]+", "-", stem).strip(" ._-")[:80] or "study"


def _path(made_of: Beginning, path: Path) -> str:
    return _text(_relative(made_of, path))


def _relative(made_of: Beginning, path: Path) -> str:
    """The path as the study file's folder sees it."""
    return os.path.relpath(path.absolute(), made_of.out.absolute().parent)


def _text(text: str) -> str:
    """A TOML string; JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"
