"""What a secure sum says between coordinator and site, stage by stage: every field with its kind and its bound.

The stages are those of SecAgg+ as Flower has it (:mod:`edgedeploy.federated.secure_sum`). What leaves a site is a public key
pair's public halves, shares of seeds that only other sites can read, arrays under masks, and at last the shares that open
the sum. Nothing of Flower's own records travels: they are taken apart here and put together again on the other side.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from edgedeploy.errors import DataError
from edgedeploy.federated.histograms import BINS

if TYPE_CHECKING:
    from flwr.app import RecordDict

MOST_SITES: Final = 256
MOST_TENSORS: Final = 800
"""Of a network whose histograms are summed: their two planes are 5.8 MB of a site's message then."""
MOST_ARRAYS: Final = 8
MOST_VALUES: Final = 2 * BINS * MOST_TENSORS

Stage = Literal["begin", "setup", "share_keys", "collect_masked_vectors", "unmask"]
Node = Annotated[int, Field(ge=1, le=MOST_SITES)]
Hex64 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Base64 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
Small = Annotated[Base64, Field(max_length=1024)]
"""A key, or a share of a seed: 32 to some 300 bytes."""
Large = Annotated[Base64, Field(max_length=4 * (MOST_VALUES + 1) * 4 // 3 + 8)]


class Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Keys(Said):
    """A site's two public keys."""

    node: Node
    pk1: Small
    pk2: Small


class Parameters(Said):
    """Of the sum, as the coordinator has them: see :class:`edgedeploy.federated.secure_sum.SumSettings`."""

    sample_num: int = Field(ge=2, le=MOST_SITES)
    share_num: int = Field(ge=2, le=MOST_SITES)
    threshold: int = Field(ge=2, le=MOST_SITES)
    clipping_range: float = Field(gt=0, allow_inf_nan=False)
    target_range: int = Field(ge=2, le=1 << 32)
    mod_range: int = Field(ge=2, le=1 << 32)
    max_weight: float = Field(gt=0, allow_inf_nan=False)


class SumAsked(Said):
    """What a coordinator asks: ``begin`` asks which network the site observes, the others are SecAgg+'s. ``node`` is the
    site's number in the sum. ``outermost`` are bins (tensors, 2) of the merged extremes, in the second sum alone."""

    stage: Stage
    node: Node
    parameters: Parameters | None = None
    keys: tuple[Keys, ...] = Field(default=(), max_length=MOST_SITES)
    sources: tuple[Node, ...] = Field(default=(), max_length=MOST_SITES)
    ciphertexts: tuple[Small, ...] = Field(default=(), max_length=MOST_SITES)
    outermost: tuple[tuple[int, int], ...] = Field(default=(), max_length=MOST_TENSORS)
    active: tuple[Node, ...] = Field(default=(), max_length=MOST_SITES)
    dead: tuple[Node, ...] = Field(default=(), max_length=MOST_SITES)


class Masked(Said):
    """An array of whole numbers below 2^32 under masks, as little-endian unsigned ones of 32 bits."""

    shape: tuple[Annotated[int, Field(ge=1, le=MOST_VALUES)], ...] = Field(max_length=3)
    values: Large


class SumSaid(Said):
    """What a site answers: of ``begin`` a hash of network and tensors with the number of these, else what the stage has."""

    stage: Stage
    network: Hex64 | None = None
    tensors: int = Field(default=0, ge=0, le=MOST_TENSORS)
    pk1: Small = ""
    pk2: Small = ""
    destinations: tuple[Node, ...] = Field(default=(), max_length=MOST_SITES)
    ciphertexts: tuple[Small, ...] = Field(default=(), max_length=MOST_SITES)
    masked: tuple[Masked, ...] = Field(default=(), max_length=MOST_ARRAYS)
    nodes: tuple[Node, ...] = Field(default=(), max_length=MOST_SITES)
    shares: tuple[Small, ...] = Field(default=(), max_length=MOST_SITES)


def asked_of(content: RecordDict, node: int) -> SumAsked:
    """What Flower's workflow sends to a site, taken apart."""
    from flwr.common import parameters_to_ndarrays
    from flwr.compat.common.recorddict_compat import recorddict_to_fitins

    config = dict(content.config_records[_CONFIGS])
    stage: Any = config.pop("stage")
    more: dict[str, Any] = {}
    if stage == "setup":
        more["parameters"] = Parameters(**config)  # type: ignore[arg-type]
    elif stage == "share_keys":
        pairs: Any = config
        more["keys"] = tuple(
            Keys(node=int(name), pk1=text_of(pair[0]), pk2=text_of(pair[1])) for name, pair in pairs.items()
        )
    elif stage == "collect_masked_vectors":
        texts: Any = config["ctxts"]
        more |= {"sources": _whole(config["srcs"]), "ciphertexts": tuple(map(text_of, texts))}
        arrays = parameters_to_ndarrays(recorddict_to_fitins(content, keep_input=True).parameters)
        if arrays:
            more["outermost"] = tuple((int(high), int(low)) for high, low in arrays[0])
    else:
        more |= {"active": _whole(config["active_nids"]), "dead": _whole(config["dead_nids"])}
    return SumAsked(stage=stage, node=node, **more)


def content_of(asked: SumAsked) -> RecordDict:
    """The records that a site's app of Flower takes, put together again."""
    from flwr.app import ConfigRecord, RecordDict
    from flwr.common import FitIns, ndarrays_to_parameters
    from flwr.compat.common.recorddict_compat import fitins_to_recorddict

    content = RecordDict()
    found: dict[str, Any]
    if asked.stage == "setup":
        assert asked.parameters is not None
        found = asked.parameters.model_dump()
    elif asked.stage == "share_keys":
        found = {str(pair.node): [bytes_of(pair.pk1), bytes_of(pair.pk2)] for pair in asked.keys}
    elif asked.stage == "collect_masked_vectors":
        bins = [np.array(asked.outermost, np.int64)] if asked.outermost else []
        content = fitins_to_recorddict(FitIns(ndarrays_to_parameters(bins), {}), keep_input=True)
        found = {"srcs": list(asked.sources), "ctxts": [bytes_of(text) for text in asked.ciphertexts]}
    else:
        found = {"active_nids": list(asked.active), "dead_nids": list(asked.dead)}
    content.config_records[_CONFIGS] = ConfigRecord({"stage": asked.stage, **found})
    return content


def said_of(stage: Stage, content: RecordDict) -> SumSaid:
    """What a site's app of Flower answers, taken apart: nothing but these fields leaves. Raises ``DataError`` for arrays
    that are no masked ones."""
    config: Any = content.config_records[_CONFIGS]
    if stage == "setup":
        return SumSaid(stage=stage, pk1=text_of(config["pk1"]), pk2=text_of(config["pk2"]))
    if stage == "share_keys":
        texts = tuple(map(text_of, config["ctxts"]))
        return SumSaid(stage=stage, destinations=_whole(config["dsts"]), ciphertexts=texts)
    if stage == "collect_masked_vectors":
        return SumSaid(stage=stage, masked=tuple(map(_masked, config["masked_params"])))
    return SumSaid(stage=stage, nodes=_whole(config["nids"]), shares=tuple(map(text_of, config["shares"])))


def answer_of(said: SumSaid) -> RecordDict:
    """The records that Flower's workflow takes. Raises ``DataError`` for arrays that do not fill their shapes."""
    from flwr.app import ConfigRecord, RecordDict
    from flwr.common import Code, FitRes, Parameters, Status
    from flwr.compat.common.recorddict_compat import fitres_to_recorddict

    content = RecordDict()
    found: dict[str, Any]
    if said.stage == "setup":
        found = {"pk1": bytes_of(said.pk1), "pk2": bytes_of(said.pk2)}
    elif said.stage == "share_keys":
        found = {"dsts": list(said.destinations), "ctxts": [bytes_of(text) for text in said.ciphertexts]}
    elif said.stage == "collect_masked_vectors":
        result = FitRes(Status(Code.OK, ""), Parameters([], "numpy.ndarray"), 1, {})
        content = fitres_to_recorddict(result, keep_input=True)
        found = {"masked_params": [_opened(item) for item in said.masked]}
    else:
        found = {"nids": list(said.nodes), "shares": [bytes_of(text) for text in said.shares]}
    content.config_records[_CONFIGS] = ConfigRecord(found)
    return content


_CONFIGS: Final = "secaggplus_configs"


def _masked(data: bytes) -> Masked:
    from flwr.compat.common.parameter import bytes_to_ndarray

    array: npt.NDArray[Any] = bytes_to_ndarray(data)
    whole = np.issubdtype(array.dtype, np.integer)
    if not whole or array.size > MOST_VALUES or int(array.min(initial=0)) < 0 or int(array.max(initial=0)) >= 1 << 32:
        found = f"{array.dtype} of {array.size} values"
        raise DataError("a masked array", found, f"Observe at most {MOST_TENSORS} tensors")
    return Masked(shape=array.shape, values=text_of(array.astype("<u4").tobytes()))


def _opened(said: Masked) -> bytes:
    from flwr.compat.common.parameter import ndarray_to_bytes

    values = np.frombuffer(bytes_of(said.values), "<u4").astype(np.int64)
    if values.size != int(np.prod(said.shape, dtype=np.int64)):
        raise DataError(
            "a masked array", f"{values.size} values of shape {said.shape}", "Both ends must be of one release"
        )
    return bytes(ndarray_to_bytes(values.reshape(said.shape)))


def _whole(numbers: Any) -> tuple[int, ...]:
    found: Sequence[Any] = numbers
    return tuple(int(number) for number in found)


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def bytes_of(text: str) -> bytes:
    """Raises ``DataError``."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise DataError("a part of a secure sum", "it is no base64", "Both ends must be of one release") from None
