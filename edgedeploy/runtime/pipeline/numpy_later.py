"""numpy, imported when it is first used: what only looks at a board, or at a bundle's signature, runs without it."""

from typing import Any


class _Numpy:
    def __getattr__(self, name: str) -> Any:
        import numpy

        value = getattr(numpy, name)
        setattr(self, name, value)
        return value


np: Any = _Numpy()
