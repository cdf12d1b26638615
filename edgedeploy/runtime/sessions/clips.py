"""Runs a network that carries state over a clip, frame by frame: on boards for its outputs, on the host for the reference.

A clip's feeds hold (frames, *input shape) of each input that a frame brings, and the state before the first frame of each
input that carries state. ``states`` maps such an input to the output that is its value in the next frame.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any, Callable

Feeds = typing.Mapping[str, Any]  # before Python 3.9 that of collections.abc takes no types


def frame_of(feeds: Feeds, states: Mapping[str, str], index: int, state: Feeds) -> dict[str, Any]:
    """The inputs of one frame."""
    import numpy as np

    return {name: state[name] if name in states else np.array(value[index]) for name, value in feeds.items()}


def run_clip(
    run: Callable[[Feeds], Feeds], feeds: Feeds, states: Mapping[str, str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Inputs and outputs of each frame in turn; outputs that are state are left out."""
    import numpy as np

    state = {name: feeds[name] for name in states}
    length = min(len(value) for name, value in feeds.items() if name not in states)
    for index in range(length):
        frame = frame_of(feeds, states, index, state)
        outputs = run(frame)
        state = {name: np.asarray(outputs[after]) for name, after in states.items()}
        yield frame, {name: value for name, value in outputs.items() if name not in states.values()}


def clip_outputs(run: Callable[[Feeds], Feeds], feeds: Feeds, states: Mapping[str, str]) -> dict[str, Any]:
    """What a clip gives: (frames, *output shape) of each output that is no state."""
    import numpy as np

    rows = [outputs for _, outputs in run_clip(run, feeds, states)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
