"""Which layer computes in which precision: a plan over layer names, and the pure function that applies it.

A plan is an ordered list of rules. Each has a layer's name or a pattern (``*``, ``?``, ``[...]`` as in file names) and
a precision. The first rule that matches a layer decides; a layer without a matching rule keeps the model's precision.
Layer names are the node names of the ONNX reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from edgedeploy.errors import BuildError, Unsupported, closest, nearest

LAYER_PRECISIONS: Final = ("float32", "float16", "bfloat16", "int8", "int8-dynamic", "int8-weights", "int4-weights")
"""``int8-dynamic`` quantizes a layer's input at each query. ``int8-weights`` and ``int4-weights`` store a layer's weights
in 8 and 4 bits; how its products are computed the runtime decides, in float or with inputs rounded to 8 bits on the way."""

AS_GIVEN: Final = "as-given"
"""The precision of a model whose file says itself what computes in what: quantized already, or float64."""

CALIBRATED: Final = ("int8",)
"""Precisions whose ranges come from calibration cases."""

SHOWN_RULES: Final = 6
"""A plan with more rules is not written out in labels."""

WEIGHTS_ONLY: Final = ("int8-weights", "int4-weights")
"""Precisions that are about stored weights alone: they need no calibration cases. Tables of embeddings shrink too."""

NARROW: Final = ("int8", "int8-dynamic", *WEIGHTS_ONLY)
"""Precisions that only layers with constant weights of their own can take."""


@dataclass(frozen=True)
class Int8Scheme:
    """How a target makes a layer int8, as far as its error goes: activations in 8 bits with an offset for a whole tensor,
    and weights around zero with one scale for each output channel.

    - ``outputs``: what a layer writes is rounded too; otherwise what int8 layers read is, and nothing else.
    - ``mean_extremes``: a tensor's range is the mean of the cases' extremes; otherwise it is their widest.
    - ``operators``: those without weights that get int8 by themselves, whatever is around them.
    - ``one_range``: operators whose inputs need one range, so that the layers before have one precision.
    """

    outputs: bool = True
    mean_extremes: bool = False
    operators: tuple[str, ...] = ()
    one_range: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class PrecisionRule:
    pattern: str
    precision: str

    def fits(self, name: str) -> bool:
        """Whether the rule matches ``name``. An equal name always matches: exporters put brackets and stars into
        names."""
        return name == self.pattern or fnmatchcase(name, self.pattern)


@dataclass(frozen=True, order=True)
class PrecisionPlan:
    """Rules in order of precedence. An empty plan changes nothing."""

    rules: tuple[PrecisionRule, ...] = ()

    @classmethod
    def of(cls, table: Mapping[str, str]) -> PrecisionPlan:
        """The plan of a table from pattern to precision, in its order."""
        return cls(tuple(PrecisionRule(pattern, precision) for pattern, precision in table.items()))

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions the plan asks for, each once."""
        return tuple(dict.fromkeys(rule.precision for rule in self.rules))

    def as_json(self) -> list[list[str]]:
        return [[rule.pattern, rule.precision] for rule in self.rules]

    @classmethod
    def from_json(cls, data: Iterable[Sequence[str]]) -> PrecisionPlan:
        return cls(tuple(PrecisionRule(str(pattern), str(precision)) for pattern, precision in data))

    def allowed(self, base: str, offered: Sequence[str]) -> PrecisionPlan:
        """The plan reduced to what a target with the layer precisions ``offered`` can build in a ``base`` model.

        Rules that the target does not support are removed, and so are final rules whose precision is ``base``, because
        they change nothing.
        """
        rules = [rule for rule in self.rules if rule.precision in offered]
        while rules and rules[-1].precision == base:
            rules.pop()
        return PrecisionPlan(tuple(rules))

    @property
    def label(self) -> str:
        """Short text for people. Of many rules it counts those of each precision and tells plans apart by four digits."""
        if len(self.rules) <= SHOWN_RULES:
            return " ".join(f"{rule.pattern}={rule.precision}" for rule in self.rules)
        asked = [rule.precision for rule in self.rules]
        counts = " ".join(f"{asked.count(name)}x{name}" for name in self.precisions)
        return f"{counts}#{hashlib.sha256(repr(self.as_json()).encode()).hexdigest()[:4]}"


NO_RULES: Final = PrecisionPlan()
"""The plan that changes nothing."""


@dataclass(frozen=True)
class Layer:
    """A node of the reference. ``weighted``: it multiplies with constant weights, so it can have a narrow precision."""

    name: str
    operator: str
    weighted: bool


@dataclass(frozen=True)
class Assignment:
    """By layer name: the precision, and the rule that decided it if there is one; and which layers have weights."""

    precisions: Mapping[str, str]
    rules: Mapping[str, PrecisionRule]
    weighted: frozenset[str]

    def of(self, names: Iterable[str], base: str) -> str:
        """The precision of layers that a toolchain has fused into one: that of the matching rule, else ``base``. A
        layer with weights takes precedence over what was folded into it (a batch norm).

        Raises ``Unsupported`` when rules give a fused layer two precisions.
        """
        ruled = [name for name in names if name in self.rules]
        deciding = [name for name in ruled if name in self.weighted] or ruled
        asked = {self.rules[name].precision: name for name in deciding}
        if len(asked) > 1:
            text = ", ".join(f"{name} {precision}" for precision, name in sorted(asked.items()))
            raise Unsupported("layers that run as one in different precisions", text, "Give them the same precision")
        return next(iter(asked), base)


def assign(plan: PrecisionPlan, layers: Sequence[Layer], base: str) -> Assignment:
    """Apply ``plan`` to ``layers`` in a model of precision ``base``.

    Raises ``BuildError`` for a rule that decides no layer, because a misspelt name would otherwise go unnoticed;
    ``Unsupported`` for a rule with a narrow precision whose layers have no weights.
    """
    decided: dict[str, PrecisionRule] = {}
    for layer in layers:
        rule = next((rule for rule in plan.rules if rule.fits(layer.name)), None)
        if rule is not None:
            decided[layer.name] = rule
    names = [layer.name for layer in layers]
    weighted = frozenset(layer.name for layer in layers if layer.weighted)
    for rule in plan.rules:
        asked = f"layer {rule.pattern!r} in {rule.precision}"
        own = {name for name, by in decided.items() if by == rule}
        if not own:
            taken = any(rule.fits(name) for name in names)
            found = "rules before it decide all of these layers" if taken else "no layer has that name"
            raise BuildError(asked, found, "Remove the rule" if taken else nearest_layer(rule.pattern, names))
        if rule.precision in NARROW and not own & weighted:
            text = f"{min(own)!r} multiplies with no constant weights"
            raise Unsupported(asked, text, "Name convolutions or matrix products")
    precisions = {name: decided[name].precision if name in decided else base for name in names}
    return Assignment(precisions, decided, weighted)


def nearest_layer(pattern: str, names: Sequence[str]) -> str:
    """As :func:`edgedeploy.errors.nearest`, but lists only a few names when none is close: a network has hundreds."""
    if closest(pattern, names) is not None:
        return nearest(pattern, names)
    return f"Layers are named {', '.join(names[:5])} ..."
