"""Older ways to write a command, which docs/stability.md lists: they still work, and say the new one on standard error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

from typer.core import TyperCommand

from edgedeploy.cli.loudness import print_line


class _Older(TyperCommand):
    """A command whose words are made new before they are read."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        words: list[str] = []
        for word in args[:end]:
            option, equals, value = word.partition("=")
            words += [option, value] if equals and option in self.renamed() else [word]
        changes, words = self.made_new(words)
        if not ctx.resilient_parsing:
            for old, new in changes:
                print_line(f"`{self.name} {old}` is deprecated: write `{self.name} {new}`")
        return super().parse_args(ctx, [*words, *args[end:]])

    def renamed(self) -> Sequence[str]:
        """Options whose value may stand behind a `=`."""
        raise NotImplementedError

    def made_new(self, words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
        """What is deprecated of ``words``, each with the new way; and all of them, new."""
        raise NotImplementedError


class PickTookAValue(_Older):
    """``--pick ID`` is ``--variant ID``. What stands behind a flag may also be the folder's name, so only what looks like a
    digest is taken for one."""

    digest: ClassVar[re.Pattern[str]] = re.compile("[0-9a-f]{4,16}")
    word: ClassVar[str | None] = None

    def renamed(self) -> Sequence[str]:
        return ("--pick",)

    def made_new(self, words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
        changes, made = [], list(words)
        for place in range(len(words) - 1, 0, -1):
            if words[place - 1] != "--pick":
                continue
            value = words[place]
            if self.digest.fullmatch(value):
                made[place - 1] = "--variant"
                changes.append((f"--pick {value}", f"--variant {value}"))
            elif value == self.word:
                del made[place]
                changes.append((f"--pick {value}", "--pick"))
        return changes, made


class PickTookAWord(PickTookAValue):
    """As well, ``--pick pick`` is ``--pick``: of commands whose ``--pick`` always took a value."""

    digest = re.compile("[0-9a-f]+")
    word = "pick"


class ToWasAFile(_Older):
    """``--to FILE`` is ``--out FILE``, as of every other command that writes one."""

    def renamed(self) -> Sequence[str]:
        return ("--to",)

    def made_new(self, words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
        values = [value for option, value in pairwise(words) if option == "--to"]
        changes = [(f"--to {value}", f"--out {value}") for value in values]
        return changes, ["--out" if word == "--to" else word for word in words]
