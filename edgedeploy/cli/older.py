"""Older ways to write a command, which docs/stability.md lists: they still work, and say the new one on standard error."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

from typer.core import TyperCommand

from edgedeploy.cli.loudness import print_line

_Changes: TypeAlias = list[tuple[str, str]]
"""What is deprecated of a command's words, each with the new way."""


def _understanding(option: str, made_new: Callable[[list[str]], tuple[_Changes, list[str]]]) -> type[TyperCommand]:
    """A command whose words ``made_new`` makes new before they are read. ``option`` is the one whose older way it knows;
    its value may stand behind a ``=``."""

    class Older(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            end = args.index("--") if "--" in args else len(args)
            words: list[str] = []
            for word in args[:end]:
                before, equals, value = word.partition("=")
                words += [before, value] if equals and before == option else [word]
            changes, words = made_new(words)
            if not ctx.resilient_parsing:
                for old, new in changes:
                    print_line(f"`{self.name} {old}` is deprecated: write `{self.name} {new}`")
            return super().parse_args(ctx, [*words, *args[end:]])

    return Older


def _pick(words: list[str], digest: str, word: str | None = None) -> tuple[_Changes, list[str]]:
    """``--pick ID`` is ``--variant ID``. What stands behind a flag may also be the folder's name, so only what looks like a
    ``digest`` is taken for one. ``--pick WORD`` is ``--pick``."""
    changes, made = [], list(words)
    for place in range(len(words) - 1, 0, -1):
        if words[place - 1] != "--pick":
            continue
        value = words[place]
        if re.fullmatch(digest, value):
            made[place - 1] = "--variant"
            changes.append((f"--pick {value}", f"--variant {value}"))
        elif value == word:
            del made[place]
            changes.append((f"--pick {value}", "--pick"))
    return changes, made


def _to(words: list[str]) -> tuple[_Changes, list[str]]:
    """``--to FILE`` is ``--out FILE``, as of every other command that writes one."""
    values = [value for option, value in pairwise(words) if option == "--to"]
    changes = [(f"--to {value}", f"--out {value}") for value in values]
    return changes, ["--out" if word == "--to" else word for word in words]


PickTookAValue = _understanding("--pick", partial(_pick, digest="[0-9a-f]{4,16}"))

PickTookAWord = _understanding("--pick", partial(_pick, digest="[0-9a-f]+", word="pick"))
"""Of commands whose ``--pick`` always took a value: a digest, or the word ``pick``."""

ToWasAFile = _understanding("--to", _to)
