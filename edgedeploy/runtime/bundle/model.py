"""A bundle that is ready: what an integrator's program calls."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from edgedeploy.runtime.bundle.golden import Proof
from edgedeploy.runtime.bundle.manifest import Manifest, Tensor
from edgedeploy.runtime.bundle.stream import Stream
from edgedeploy.runtime.pipeline.run import finish, prepare
from edgedeploy.runtime.pipeline.steps import Steps
from edgedeploy.runtime.sessions.open import Session
from edgedeploy.runtime.sessions.tiles import TiledSession


class Model:
    """Made by :func:`edgedeploy.runtime.load`, and ready then: its golden vectors have passed.

    Any thread may call it. Steps before and after inference run beside each other; inference itself is one at a time,
    as the latency was measured, and others wait for it. Who wants several inferences at once loads the bundle several
    times.
    """

    proof: Proof
    """How near its golden vectors came on this machine."""

    def __init__(self, manifest: Manifest, identity: str, signer: str | None, session: Session, steps: Steps) -> None:
        self.manifest = manifest
        self.identity = identity
        self.signer = signer
        self._session = session
        self._steps = steps
        self._one_at_a_time = threading.Lock()

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def release(self) -> int:
        return self.manifest.release

    @property
    def inputs(self) -> Sequence[Tensor]:
        return self.manifest.inputs

    @property
    def outputs(self) -> Sequence[Tensor]:
        return self.manifest.outputs

    @property
    def device(self) -> str:
        """What runs it, and the backend's release."""
        return f"{self._session.device} ({self.manifest.target} {self._session.version})"

    def __call__(self, frame: Any) -> Any:
        """A frame as the source gives it to the product's result, by the bundle's own steps: a frame is (height, width)
        or (height, width, 3), uint8 or float32, black 0 to white 255. A bundle without steps takes and gives tensors by
        name.

        Raises ``ValueError`` for a frame that the steps do not take; :class:`~edgedeploy.runtime.faults.RuntimeFault`
        where the backend fails.
        """
        inputs, placement = prepare(self._steps, frame) if self._steps.input else (self._as_given(frame), None)
        outputs = self.run(inputs)
        return finish(self._steps, outputs, placement) if self._steps.output else outputs

    def _as_given(self, frame: Any) -> Mapping[str, Any]:
        """Without steps for the input, a frame is the inputs by name, or the one input."""
        if isinstance(frame, Mapping):
            return frame
        if len(self.inputs) != 1:
            raise ValueError(f"{self.name} has no steps that make its {len(self.inputs)} inputs: give them by name")
        return {self.inputs[0].name: frame}

    def run(self, inputs: Mapping[str, Any], progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """Tensors by input name to tensors by output name, without the bundle's steps. Of a network that carries state,
        the state is an input and an output too. ``progress(done, of)`` is called after each tile of a volume that is run
        in tiles, and once after anything else.

        Raises ``ValueError`` for other names, types or shapes than the model takes, :class:`RuntimeFault` where the
        backend fails.
        """
        self._check(inputs)
        with self._one_at_a_time:
            if progress is not None and isinstance(self._session, TiledSession):
                return self._session.run(inputs, progress)
            outputs = self._session.run(inputs)
        if progress is not None:
            progress(1, 1)
        return outputs

    def _check(self, inputs: Mapping[str, Any]) -> None:
        import numpy as np

        names = [tensor.name for tensor in self.inputs]
        if set(inputs) != set(names):
            raise ValueError(f"the model takes {', '.join(names)}, and was given {', '.join(inputs) or 'nothing'}")
        for tensor in self.inputs:
            value = inputs[tensor.name]
            if not isinstance(value, np.ndarray):
                raise ValueError(f"input {tensor.name!r} is a {type(value).__name__}, and a numpy array is taken")
            fits = len(value.shape) == len(tensor.shape) and all(
                wanted in (None, size) for wanted, size in zip(tensor.shape, value.shape)
            )
            if value.dtype.name != tensor.dtype or not value.dtype.isnative or not fits:
                taken = f"{tensor.dtype}{['any' if size is None else size for size in tensor.shape]}"
                raise ValueError(f"input {tensor.name!r} is {value.dtype}{list(value.shape)}, the model takes {taken}")

    def stream(self, policy: str = "latest", *, capacity: int = 1, deadline_ns: int | None = None) -> Stream:
        """A live source: ``with model.stream() as stream``. ``policy`` says what becomes of a frame that has to wait:

        - ``latest``: one frame waits; a newer one replaces it;
        - ``bounded``: ``capacity`` frames wait; one that finds no place is dropped;
        - ``block``: none is dropped; the source waits.

        A frame is missed when it has no result ``deadline_ns`` after its arrival. Raises ``ValueError``.
        """
        return Stream(self, policy, capacity, deadline_ns)
