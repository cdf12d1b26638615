"""An audit as a page of Markdown: each finding with its limits beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

HEAD: Final = (
    "Each part says what was measured, on how many cases and how sure it is, and what it cannot show. A part that finds "
    "nothing does not show that there is nothing."
)


def verdict_of(plant: Sequence[str], looked: Sequence[str]) -> str:
    """One sentence: nothing is said to be absent that nobody looked for."""
    if plant:
        return f"SLEEPING BACKDOOR found by {', '.join(plant)}."
    if not looked:
        return "Sleeping backdoors were NOT looked for: each search abstained, failed or was not asked for."
    return f"No sleeping backdoor found by {', '.join(looked)}."


def page(audit: Mapping[str, Any]) -> str:
    verdict = verdict_of(audit["sleeping_backdoor_found_by"], audit["sleeping_backdoor_looked_for_by"])
    lines = [
        f"# Audit of {audit['variant']}",
        "",
        f"Variant `{audit['digest']}`, edgedeploy {audit['edgedeploy']}.",
        "",
    ]
    lines += [f"**{verdict}**", "", HEAD, ""]
    if audit["incomplete"]:
        late = ", ".join(audit["incomplete"])
        lines += [f"The time was over, or this machine was none for it, before these were complete: {late}.", ""]
    for part in audit["parts"]:
        lines += _part(part)
    return "\n".join(lines)


def _part(part: Mapping[str, Any]) -> list[str]:
    lines = [f"## {part['title']}", ""]
    if part["plant"]:
        lines += ["**Found.**", ""]
    if part["why_not"]:
        lines += [f"Not measured, because {part['why_not']}.", ""]
    lines += [f"- {line}" for line in part["measured"]]
    lines += [f"![Where the answers differ]({name})" for name in part["files"] if name.endswith(".png")]
    lines += ["", f"*Limits.* {part['limits']}", ""]
    lines += [f"{part['wall_s']:.1f} s by the clock, {part['processor_s']:.1f} s of processor time.", ""]
    return lines
