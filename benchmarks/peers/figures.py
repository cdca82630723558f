"""Figures from the measured rounds: medians, ratios, and one cell about the values that a tool wrote."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

BASE = "tick"  # ratios are those to this tool
Found = Mapping[str, Any]


def median(loads: Sequence[Found], name: str) -> float:
    """Return the median of one figure over the rounds."""
    return statistics.median(load[name] for load in loads)


def ratio(tools: Found, name: str, figure: str, base: str = BASE) -> float:
    """Return the median over the rounds of one figure of a tool, divided by that of the base in the same round."""
    pairs = zip(tools[name]["loads"], tools[base]["loads"], strict=True)
    return statistics.median(load[figure] / other[figure] for load, other in pairs)


def works(tool: Found) -> bool:
    """Return whether a tool copied the table without an error."""
    return not any(load["error"] for load in tool["loads"])


def values(tool: Found) -> str:
    """Return one cell about the values that a tool wrote."""
    if not works(tool):
        return "failed: " + next(load["error"] for load in tool["loads"] if load["error"]).replace("|", "/")[:120]
    verdict = tool["verdict"]
    wrong = [f"{name} ({count:,})" for name, count in verdict["wrong"].items()]
    faults = [f"{verdict['lost']:,} rows lost"] * bool(verdict["lost"])
    faults += [f"{verdict['doubled']:,} rows doubled"] * bool(verdict["doubled"])
    faults += [f"wrong values: {', '.join(wrong)}"] * bool(wrong) + [verdict["error"]] * bool(verdict["error"])
    if faults:
        return f"**wrong**: {'; '.join(faults)}"
    kept = ", ".join(item.split("(")[0] for item in verdict["retyped"])
    return f"exact; other types: {kept}" if kept else "exact"
