"""Masks of a secure sum that have the entropy of their seeds.

Flower 1.42 draws masks by a Mersenne Twister that it seeds with 32 bits: the seed's eight words, added without carry. Who
knows some of a site's values (most bins are empty) tries 2^32 seeds in hours. Here the seed's SHA-256 is the key of ChaCha20
(RFC 8439), whose key stream is the mask. Coordinator and sites both have to draw so: a sum with a plain Flower app fails.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

NAME: Final = "pseudo_rand_gen"
_HELD = threading.Lock()
_USERS: list[object] = []
_FLOWERS: dict[str, Any] = {}


def drawn(seed: bytes, num_range: int, dimensions_list: Sequence[tuple[int, ...]]) -> list[npt.NDArray[np.int64]]:
    """Arrays of whole numbers from 0 up to 2^32 - 1, as Flower's function of that name. Raises ``ValueError`` for another
    ``num_range``."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    if num_range != 1 << 32:
        raise ValueError(f"masks are drawn below 2^32, not below {num_range}")
    stream = Cipher(algorithms.ChaCha20(hashlib.sha256(seed).digest(), bytes(16)), mode=None).encryptor()
    found = []
    for shape in dimensions_list:
        count = int(np.prod(shape, dtype=np.int64))
        values = np.frombuffer(stream.update(bytes(4 * count)), "<u4").astype(np.int64)
        found.append(values.reshape(shape))
    return found


@contextmanager
def full_seeds() -> Iterator[None]:
    """Flower's protocol draws its masks by :func:`drawn` in the block, in all threads."""
    from flwr.client.mod.secure_aggregation import secaggplus_mod as at_site
    from flwr.server.workflow.secure_aggregation import secaggplus_workflow as at_server

    user, modules = object(), {"site": _module(at_site), "server": _module(at_server)}
    with _HELD:
        if not _USERS:
            _FLOWERS.update({name: getattr(module, NAME) for name, module in modules.items()})
            for module in modules.values():
                setattr(module, NAME, drawn)
        _USERS.append(user)
    try:
        yield
    finally:
        with _HELD:
            _USERS.remove(user)
            if not _USERS:
                for name, module in modules.items():
                    setattr(module, NAME, _FLOWERS[name])


def _module(found: Any) -> Any:
    """The module, where its package has a function of the same name in its place."""
    import sys

    return sys.modules[found.__module__] if callable(found) else found
