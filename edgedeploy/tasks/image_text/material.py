"""The text's side: a tokenizer, and an encoder with real weights or a small random one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import DataError, SpecError
from edgedeploy.tasks.image_text.descriptions import UNKNOWN, WORDS
from edgedeploy.tasks.pictures.table import read_limited
from edgedeploy.tasks.places import place_of

FILES: Final = ("config.json", "model.safetensors", "tokenizer.json")
MOST_JSON_BYTES: Final = 1 << 24
COMPUTED: Final = {
    **{"model_type": "bert", "hidden_act": "gelu"},
    **{"position_embedding_type": "absolute", "layer_norm_eps": 1e-12, "is_decoder": False},
}
"""What an encoder's configuration says of its computing, where it says it: BERT's own values."""
RANDOM_DIM, RANDOM_BLOCKS, RANDOM_HEADS = 32, 1, 2


class Material:
    """``folder`` holds :data:`FILES` of a BERT encoder, as sentence encoders are published; None: a random encoder, whose
    vocabulary is that of the descriptions. Raises ``DataError``, and ``ModuleNotFoundError`` without ``tokenizers``."""

    def __init__(self, folder: Path | None, tokens: int) -> None:
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import Whitespace

        self.folder, self.tokens = folder, tokens
        if folder is None:
            self.tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token=UNKNOWN))
            self.tokenizer.pre_tokenizer = Whitespace()
        else:
            self.tokenizer = self._read(
                "tokenizer.json", MOST_JSON_BYTES, lambda data: Tokenizer.from_str(data.decode())
            )
        self.tokenizer.enable_padding(length=tokens)
        self.tokenizer.enable_truncation(tokens)

    def encode(self, text: str) -> tuple[Any, Any]:
        """ids and mask of a text, int64 (1, tokens)."""
        found = self.tokenizer.encode(text)
        return np.array([found.ids], np.int64), np.array([found.attention_mask], np.int64)

    def encoder(self) -> tuple[Any, int]:
        """The encoder, and channels of what it gives. One with real weights is frozen."""
        from edgedeploy.tasks.image_text.encoder import TextEncoder, TextShape, load_bert

        if self.folder is None:
            shape = TextShape(len(WORDS), self.tokens, RANDOM_DIM, RANDOM_BLOCKS, RANDOM_HEADS)
            return TextEncoder(shape), RANDOM_DIM
        from safetensors.torch import load

        config = self._read("config.json", MOST_JSON_BYTES, json.loads)
        weights = self._read("model.safetensors", 1 << 31, load)
        try:
            dim = int(weights["embeddings.word_embeddings.weight"].shape[1])
            encoder = load_bert(weights, _heads_of(config, dim))
        except (KeyError, IndexError, RuntimeError, ValueError, TypeError) as exc:
            found = f"no BERT encoder: {next(iter(str(exc).splitlines()), '')}"
            raise DataError(
                f"text encoder {self.folder}", found, "Name the folder of a BERT sentence encoder"
            ) from None
        places, words = encoder.places.num_embeddings, encoder.words.num_embeddings
        if self.tokenizer.get_vocab_size() > words:
            found = f"its tokenizer has {self.tokenizer.get_vocab_size()} words, its weights are of {words}"
            raise DataError(
                f"text encoder {self.folder}", found, "Name the folder of one encoder with its own tokenizer"
            )
        if self.tokens > places:
            found = f"the text encoder of {self.folder} has {places} places"
            raise SpecError(f"task.options.tokens = {self.tokens}", found, f"At most {places}")
        return encoder, encoder.words.embedding_dim

    def _read(self, name: str, most_bytes: int, read: Any) -> Any:
        assert self.folder is not None
        try:
            return read(read_limited(self.folder / name, most_bytes))
        except Exception as exc:  # a Rust library raises bare exceptions
            if isinstance(exc, MemoryError):
                raise
            remedy = f"Name a folder with {', '.join(FILES)}"
            raise DataError(f"text encoder {self.folder / name}", str(exc)[:200], remedy) from None


def _heads_of(config: Mapping[str, Any], dim: int) -> int:
    """The heads of an encoder of ``dim`` channels that computes what ours does. Raises ``ValueError`` for another one, whose
    tensors may have the same names (RoBERTa counts places from 2 on), and ``KeyError`` or ``TypeError``."""
    for name, ours in COMPUTED.items():
        if config.get(name, ours) != ours:
            raise ValueError(f"its {name} is {config[name]!r}, and only {ours!r} is computed")
    heads = int(config["num_attention_heads"])
    if heads < 1 or dim % heads:
        raise ValueError(f"{heads} heads do not share {dim} channels")
    return heads


def text_folder(name: str, base: Path) -> Path | None:
    """The folder of ``task.options.text_encoder``; None where it is left out. Raises ``SpecError``."""
    if not name:
        return None
    folder = place_of(base, name)
    lacking = [file for file in FILES if not (folder / file).is_file()]
    if lacking:
        asked = f"task.options.text_encoder = {name!r}"
        raise SpecError(asked, f"{folder} has no {lacking[0]}", f"A folder with {', '.join(FILES)}")
    return folder
