"""A site's part in a secure sum of histograms: it observes, checks what the coordinator asks, and masks what leaves.

The state of a sum (secret keys, the seed of the site's mask) lies in ``sums/`` of the site's folder, which its owner alone
can read, until the sum is opened: a site that is started again between two stages goes on. Another sum has other keys.

Flower's app follows the coordinator in what would open a single site's values: a sum of fewer sites, another threshold, a
site that is told as present and as gone at once. These are refused here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError, EdgeDeployError, SpecError
from edgedeploy.federated.histograms import Histograms, read_histograms
from edgedeploy.federated.needs import flower
from edgedeploy.federated.sum_messages import MOST_TENSORS, Parameters, SumAsked, SumSaid, content_of, said_of
from edgedeploy.files import disk_told, read_plain, remove, write_atomic

CONTEXT: Final = "context.bin"
MOST_CONTEXT_BYTES: Final = 8 << 20


class HistogramsStay(SpecError):
    """The site's file does not let histograms leave, or not in a sum of so few sites."""


@dataclass(frozen=True)
class SiteSums:
    """``folder`` keeps the state of a sum and what was observed, by release. ``allowed`` and ``least`` (sites) are of the
    site's file."""

    folder: Path
    allowed: bool
    least: int

    def answer(self, asked: SumAsked, release: str, network: str, observe: Callable[[], Histograms]) -> SumSaid:
        """What leaves for one stage. ``network`` names the weights that are observed; ``observe`` is asked once a release.

        Raises ``HistogramsStay`` where the site's file refuses it, ``DataError`` where the coordinator does not follow the
        protocol, and what ``observe`` raises.
        """
        if not self.allowed:
            found = "this site lets no histograms leave"
            raise HistogramsStay(
                "a sum of histograms", found, "[leaves] histograms = true in the site's file allows it"
            )
        self._check(asked)
        require_flower()
        with disk_told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        own = self._observed(release, network, observe)
        if asked.stage == "begin":
            return SumSaid(stage="begin", network=own.model, tensors=len(own.tensors))
        return self._stage(asked, own)

    def _check(self, asked: SumAsked) -> None:
        sites = _sites(asked)
        if sites is not None and sites < self.least:
            remedy = f"[leaves] least_sites is {self.least}: others that answer can take their own parts off a sum"
            raise HistogramsStay("a sum of histograms", f"a sum of {sites} sites", remedy)
        if found := _fault(asked, self.least):
            raise DataError("a stage of a secure sum", found, "Both ends must be of one release")

    def _observed(self, release: str, network: str, observe: Callable[[], Histograms]) -> Histograms:
        path = self.folder / f"{release}.npz"
        if path.exists():
            return read_histograms(path)
        found = anonymous(observe(), network)
        found.save(path)
        return found

    def _stage(self, asked: SumAsked, own: Histograms) -> SumSaid:
        from flwr.app import Context, Message, MessageType, RecordDict
        from flwr.common.serde import context_from_proto, context_to_proto
        from flwr.proto.message_pb2 import Context as ProtoContext

        from edgedeploy.federated.calibration import calibration_app
        from edgedeploy.federated.grid import RUN_ID, quiet_flower, server_identity

        path = self.folder / CONTEXT
        context = Context(RUN_ID, asked.node, {}, RecordDict(), {})
        if asked.stage != "setup" and path.exists():
            context = context_from_proto(ProtoContext.FromString(read_plain(path, MOST_CONTEXT_BYTES)))
        try:
            with quiet_flower(), server_identity():
                message = Message(content_of(asked), asked.node, MessageType.TRAIN)
                reply = calibration_app(lambda: own)(message, context)
            said = said_of(asked.stage, reply.content)
        except EdgeDeployError:
            raise
        except Exception as exc:  # Flower's app raises anything at what is out of order
            found = f"{asked.stage}: {type(exc).__name__}: {str(exc)[:200]}"
            raise DataError("a stage of a secure sum", found, "Begin the sum anew") from None
        if asked.stage == "unmask":
            remove(path)
        else:
            write_atomic(path, context_to_proto(context).SerializeToString())
        return said


def require_flower() -> None:
    """Raises ``TargetUnavailable`` where the package that sums are made with is missing."""
    with flower("a secure sum of histograms"):
        import flwr  # noqa: F401


def _sites(asked: SumAsked) -> int | None:
    """How many sites the sum would be of, where the stage says so."""
    if asked.stage == "setup":
        return None if asked.parameters is None else asked.parameters.sample_num
    if asked.stage == "share_keys":
        return len({pair.node for pair in asked.keys})
    if asked.stage == "collect_masked_vectors":
        return len({*asked.sources} - {asked.node}) + 1
    return len({*asked.active}) if asked.stage == "unmask" else None


def _fault(asked: SumAsked, least: int) -> str:
    """What is wrong with a question beside the number of sites; empty for nothing."""
    if asked.stage == "setup":
        return _fault_of(asked.parameters, least)
    if asked.stage == "unmask" and {*asked.active} & {*asked.dead}:
        return "a site is named as present and as gone: both shares together would open its values"
    return ""


def _fault_of(found: Parameters | None, least: int) -> str:
    from edgedeploy.federated.secure_sum import MODULUS_BITS, SumSettings

    if found is None:
        return "the sum has no parameters"
    if found.share_num != found.sample_num or not least <= found.threshold <= found.sample_num:
        return f"{found.threshold} of {found.share_num} shares would open values of {found.sample_num} sites"
    if (found.clipping_range, found.mod_range, found.max_weight) != (SumSettings.clip, 1 << MODULUS_BITS, 1.0):
        return "it is of another clip, modulus or weight than sums of histograms have"
    if found.target_range * found.sample_num > 1 << MODULUS_BITS:
        return f"{found.target_range} steps of {found.sample_num} sites pass the modulus"
    return ""


def network_digest(network: str, tensors: tuple[str, ...]) -> str:
    """Names the weights and the observed tensors together, whatever exported them."""
    return hashlib.sha256(json.dumps([network, *tensors]).encode()).hexdigest()


def places(count: int) -> tuple[str, ...]:
    """Names of tensors by their place: those of a site's network stay there."""
    return tuple(f"t{place:05}" for place in range(count))


def anonymous(found: Histograms, network: str) -> Histograms:
    """``found`` with tensors named by place, and its model by :func:`network_digest`. Raises ``DataError`` for more tensors
    than a message holds."""
    count = len(found.tensors)
    if count > MOST_TENSORS:
        remedy = "Calibrate each site by itself"
        raise DataError("a sum of histograms", f"{count} tensors; at most {MOST_TENSORS} are summed", remedy)
    return replace(found, tensors=places(count), model=network_digest(network, found.tensors))


def named_ranges(merged: Any, tensors: tuple[str, ...], network: str) -> dict[str, tuple[float, float]]:
    """The coordinator's ranges (:class:`edgedeploy.federated.merging.SiteRanges`) by this site's names. Raises ``DataError``
    where they are of another network."""
    if merged.network != network_digest(network, tensors) or len(merged.ranges) != len(tensors):
        found = "they are of another network, or of other tensors of it"
        raise DataError("the ranges of all sites", found, "All sites need one release of torch and edgedeploy")
    return dict(zip(tensors, merged.ranges, strict=True))
