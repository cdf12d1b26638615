"""Updates between releases: small, for one base alone, the new weights in every bit."""

from __future__ import annotations

import numpy as np
import pytest

from edgedeploy.compress.codec.coded import aside, digest_of_weights, stepped
from edgedeploy.compress.codec.container import Packed, to_bytes
from edgedeploy.compress.codec.delta import update_bytes, updated
from edgedeploy.errors import DataError


def release(changed: float) -> Packed:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 32, 3, 3)).astype(np.float32)
    weight += (changed * np.random.default_rng(1).standard_normal(weight.shape)).astype(np.float32)
    bias = rng.standard_normal(40).astype(np.float32)
    return Packed(
        {
            "a.weight": stepped(weight, 0.2),
            "a.bias": aside(bias + np.float32(changed), bits=8),
            "b.bias": aside(bias),
            "count": aside(np.array(round(100 * changed), np.int64)),
        }
    )


def test_an_update_gives_the_release_in_every_bit_and_is_a_fraction_of_it() -> None:
    old, new = release(0.0), release(0.02)
    update = update_bytes(old.decoded(), new)
    assert digest_of_weights(updated(old.decoded(), update)) == digest_of_weights(new.decoded())
    assert len(update) < 0.5 * len(to_bytes(new))


def test_a_release_on_other_steps_and_with_other_arrays_is_updated_too() -> None:
    old, new = release(0.0), release(0.02)
    weight = new.arrays["a.weight"].decoded()
    more = Packed({**new.arrays, "a.weight": stepped(weight, 0.3), "c.weight": stepped(weight, 0.5)})
    del more.arrays["b.bias"]  # type: ignore[attr-defined]
    found = updated(old.decoded(), update_bytes(old.decoded(), more))
    assert digest_of_weights(found) == digest_of_weights(more.decoded())


def test_an_update_is_for_its_base_alone() -> None:
    update = update_bytes(release(0.0).decoded(), release(0.02))
    with pytest.raises(DataError, match="it is for the weights"):
        updated(release(0.01).decoded(), update)


def test_a_damaged_update_gives_nothing() -> None:
    old = release(0.0).decoded()
    update = update_bytes(old, release(0.02))
    for place in range(0, len(update), 97):
        broken = bytearray(update)
        broken[place] ^= 16
        with pytest.raises(DataError):
            updated(old, bytes(broken))
        with pytest.raises(DataError):
            updated(old, update[:place])
