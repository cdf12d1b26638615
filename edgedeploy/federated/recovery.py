"""Rounds of recovery over sites: each trains the network further on its own images, and the weights are averaged by cases.

FedAvg as Flower has it (McMahan et al. 2017, arXiv 1602.05629), over any grid: Flower's SuperLink, or one of this package.
The server writes the weights of each finished round to its disk before the next begins, whole or not at all, so that a
server that is killed goes on from there; the round that it was in is trained again. A site that is gone, or sends no weights
that can be used, is left out of the round while ``least`` others answer.

Averaged weights are not masked: a site's weights are seen by the server. No privacy is promised for them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DamagedFile, SpecError
from edgedeploy.federated.needs import flower
from edgedeploy.federated.secure_sum import NoAggregate
from edgedeploy.files import parsed, read_arrays, write_arrays

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp.grid import Grid

    from edgedeploy.interfaces.task import Recoverable

Weights = Mapping[str, npt.NDArray[Any]]

CHECKPOINT: Final = "rounds.npz"
FORM: Final = "edgedeploy.rounds/1"
CASES: Final = "num-examples"
MOST_CASES: Final = 10_000_000
LARGEST: Final = 1e30
"""Of a weight: times the cases of all sites it is a float32 still."""
MOST_BYTES: Final = 4 << 30


@dataclass(frozen=True)
class RecoverySettings:
    """``rounds`` in all; ``least`` sites that have to answer in each; ``attempts`` at a round before it is given up, with
    ``wait_s`` between them; ``timeout_s`` for the answers of one attempt."""

    rounds: int
    least: int = 2
    attempts: int = 3
    wait_s: float = 10.0
    timeout_s: float = 3600.0


@dataclass(frozen=True, eq=False)
class Rounds:
    """The weights after ``done`` rounds. ``told`` says of each which sites' weights are in it, with their cases, and why
    others are not."""

    weights: Weights
    done: int
    told: tuple[Mapping[str, Any], ...] = field(default=())


def recover(grid: Grid, start: Weights, folder: Path, settings: RecoverySettings) -> Rounds:
    """The weights after all rounds. ``folder`` holds the last finished one, from which a killed server goes on; ``start``
    are the weights before the first.

    Raises ``NoAggregate`` where fewer than ``least`` sites answer at all attempts (the rounds before are kept),
    ``DamagedFile`` for a checkpoint that is not of these weights, ``StorageError`` where the disk is full.
    """
    if settings.rounds < 1 or settings.least < 1 or settings.attempts < 1:
        found = f"{settings.rounds} rounds of {settings.attempts} attempts with at least {settings.least} sites"
        raise SpecError("rounds of recovery", found, "State 1 or more of each")
    state = _kept(folder, start) or Rounds(dict(start), 0)
    while state.done < settings.rounds:
        state = _next(grid, state, settings)
        _keep(folder, start, state)
    return state


def _next(grid: Grid, state: Rounds, settings: RecoverySettings) -> Rounds:
    left_out: dict[str, str] = {}
    for attempt in range(settings.attempts):
        if attempt:
            time.sleep(settings.wait_s)
        usable, left_out = _answers(grid, state, settings)
        if len(usable) >= settings.least:
            weights = _averaged(usable, state.weights)
            cases = {str(message.metadata.src_node_id): _cases(message) for message in usable}
            told = {"round": state.done + 1, "cases": cases, "left_out": left_out, "attempts": attempt + 1}
            return Rounds(weights, state.done + 1, (*state.told, told))
    reasons = "; ".join(f"site {node}: {reason[:200]}" for node, reason in left_out.items()) or "no site is there"
    found = f"fewer than {settings.least} sites answered at {settings.attempts} attempts ({reasons})"
    remedy = "Bring the sites back, and run it again: finished rounds are kept"
    raise NoAggregate(f"round {state.done + 1} of {settings.rounds} of recovery", found, remedy)


def _answers(grid: Grid, state: Rounds, settings: RecoverySettings) -> tuple[list[Message], dict[str, str]]:
    """Replies whose weights can be averaged, and why others cannot."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

    from edgedeploy.federated.grid import WatchedGrid, quiet_flower, server_identity

    watched = WatchedGrid(grid)
    sent = ArrayRecord({name: Array(np.asarray(value)) for name, value in state.weights.items()})
    config = ConfigRecord({"server-round": state.done + 1})
    content = RecordDict({"arrays": sent, "config": config})
    with quiet_flower(), server_identity():
        messages = [Message(content, node, MessageType.TRAIN) for node in sorted(watched.get_node_ids())]
        replies = list(watched.send_and_receive(messages, timeout=settings.timeout_s))
    usable, left_out = [], {str(node): reason for node, reason in watched.errors.items()}
    for reply in replies:
        if reply.has_error():
            continue
        fault = _fault(reply, state.weights)
        if fault:
            left_out[str(reply.metadata.src_node_id)] = fault
        else:
            usable.append(reply)
    return sorted(usable, key=lambda reply: int(reply.metadata.src_node_id)), left_out


def _fault(reply: Message, like: Weights) -> str:
    """Why a site's answer cannot be averaged; empty where it can."""
    try:
        cases, arrays = _cases(reply), _arrays(reply)
    except Exception as exc:  # what a stranger's message holds may fail anywhere in reading it
        return f"its answer cannot be read ({type(exc).__name__})"
    if not 1 <= cases <= MOST_CASES:
        return f"it says it trained on {cases} cases"
    shapes = {name: (np.shape(value), np.asarray(value).dtype) for name, value in like.items()}
    if {name: (value.shape, value.dtype) for name, value in arrays.items()} != shapes:
        return "its weights have other names, shapes or types"
    floats = {name: value for name, value in arrays.items() if value.dtype.kind == "f"}
    wrong = next((name for name, value in floats.items() if not np.all(np.isfinite(value))), None)
    if wrong is not None:
        return f"its weights {wrong!r} are not all finite"
    huge = next((name for name, value in floats.items() if np.abs(value).max(initial=0) > LARGEST), None)
    return "" if huge is None else f"its weights {huge!r} are beyond {LARGEST:g}"


def _cases(reply: Message) -> int:
    found: Any = reply.content["metrics"]
    return int(found[CASES])


def _arrays(reply: Message) -> dict[str, npt.NDArray[Any]]:
    found: Any = reply.content["arrays"]
    return {name: array.numpy() for name, array in found.items()}


def _averaged(replies: Iterable[Message], like: Weights) -> dict[str, npt.NDArray[Any]]:
    """Weighted by cases, by Flower's own FedAvg; whole numbers (counters of batches) are rounded back."""
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    mean = aggregate_arrayrecords([reply.content for reply in replies], CASES)
    found = {name: array.numpy() for name, array in mean.items()}
    return {
        name: (np.rint(found[name]) if np.issubdtype(value.dtype, np.integer) else found[name]).astype(value.dtype)
        for name, value in ((name, np.asarray(value)) for name, value in like.items())
    }


def _keep(folder: Path, start: Weights, state: Rounds) -> None:
    names = list(state.weights)
    header = {"form": FORM, "names": names, "done": state.done, "told": list(state.told), "start": _digest(start)}
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    arrays = {f"w{place:05}": np.asarray(state.weights[name]) for place, name in enumerate(names)}
    write_arrays(folder / CHECKPOINT, {"header": text, **arrays})


def _kept(folder: Path, start: Weights) -> Rounds | None:
    """The last finished round; None where there is none. Raises ``DamagedFile``."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        arrays = read_arrays(path, MOST_BYTES)
        header = parsed(np.asarray(arrays["header"], np.uint8).tobytes())
        names, done, told = header["names"], header["done"], header["told"]
        if header["form"] != FORM or names != list(start) or header["start"] != _digest(start):
            raise ValueError("it is of other weights than these")
        if type(done) is not int or done < 1 or not isinstance(told, list) or len(told) != done:
            raise ValueError(f"it says {done!r} rounds")
        weights = {name: arrays[f"w{place:05}"] for place, name in enumerate(names)}
        if any(weights[name].shape != np.shape(value) for name, value in start.items()):
            raise ValueError("its weights have other shapes")
    except (OSError, ValueError, KeyError, RecursionError) as exc:
        remedy = "Remove that file to begin at the first round, or give the weights that it was begun with"
        raise DamagedFile(f"read rounds {path}", str(exc) or type(exc).__name__, remedy) from exc
    return Rounds(weights, done, tuple(told))


def _digest(weights: Weights) -> str:
    found = hashlib.sha256()
    for name, value in weights.items():
        array = np.ascontiguousarray(value)
        found.update(f"{name} {array.dtype} {array.shape};".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def weights_of(model: Any) -> dict[str, npt.NDArray[Any]]:
    """The ``state_dict`` of a torch module as arrays."""
    return {name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()}


def load_into(model: Any, weights: Weights) -> Any:
    """Fill a torch module in place, and return it in evaluation mode."""
    import torch

    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    return model.eval()


def recovery_app(
    task: Recoverable,
    model: Callable[[], Any],
    *,
    arch: Mapping[str, Any],
    cases: int,
    epochs: int = 1,
    teacher: Callable[[], Any] | None = None,
    train_site: Callable[..., float] | None = None,
) -> ClientApp:
    """A site's app: ``epochs`` of the task's recovery recipe a round on the site's own ``cases`` images, from the weights
    that the server sends. With a ``teacher`` (the float baseline) it distils, by the recipe's weight of it. ``train_site``
    takes what :func:`train_here` takes, and trains otherwise."""
    with flower("rounds of recovery"):
        from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
        from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()  # type: ignore[untyped-decorator, unused-ignore]
    def train(message: Message, context: Context) -> Message:
        own = load_into(model(), _arrays(message))
        config: Any = message.content["config"]
        number = int(config["server-round"])
        own_teacher = teacher() if teacher else None
        loss = (train_site or train_here)(own, task, arch=arch, epochs=epochs, seed=number, teacher=own_teacher)
        arrays = ArrayRecord({name: Array(value) for name, value in weights_of(own).items()})
        metrics = MetricRecord({CASES: cases, "loss": loss})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app


def train_here(
    model: Any, task: Recoverable, *, arch: Mapping[str, Any], epochs: int, seed: int = 0, teacher: Any | None = None
) -> float:
    """Train ``model`` in place on a site's own images by the task's recovery recipe: in a round, or for a copy of its own
    after the last one. Returns the mean loss of the last epoch; raises what :func:`edgedeploy.compress.training.fit`
    raises."""
    from edgedeploy.compress.training import fit

    recipe = task.recovery_recipe
    recipe = replace(recipe, epochs=epochs, early_epochs=0, warmup_epochs=0.0, seed=recipe.seed + seed)
    return float(fit(model, task, recipe, arch=arch, teacher=teacher).final_loss or 0.0)
