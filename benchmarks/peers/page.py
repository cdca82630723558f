"""``docs/performance.md`` and its plots, from the stored result. Standard library only; measures nothing.

.venv/bin/python -m benchmarks.peers.page
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.peers import plot, prose
from benchmarks.peers.figures import median, ratio, values, works
from benchmarks.peers.roster import OURS, ROOT

PAGE = ROOT / "docs/performance.md"
FOLDER = ROOT / "docs/performance"
RESULT = FOLDER / "result.json"
PARTS = ("first_load", "edges", "incremental", "writers")
Found = Mapping[str, Any]


def stored() -> dict[str, Any]:
    """Return the result of the last run of each part."""
    return json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}


def store(part: str, found: Found) -> None:
    """Store the result of one part beside those of the others."""
    FOLDER.mkdir(exist_ok=True)
    result = stored() | {part: found}
    ordered = {name: result[name] for name in PARTS if name in result}
    RESULT.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def write(result: Found) -> None:
    """Write the page and its plots."""
    PAGE.write_text(text(result), encoding="utf-8")
    for name, content in plots(result).items():
        (FOLDER / name).write_text(content, encoding="utf-8")


def text(result: Found) -> str:
    """Return the page."""
    sections: dict[str, Callable[[Found], list[str]]] = {
        "first_load": _first_load, "edges": _edges, "incremental": _incremental, "writers": _writers,
    }  # fmt: skip
    lines = [prose.HEAD, *_tools(result)]
    for name in PARTS:
        lines += ["", prose.TITLES[name], ""]
        lines += [_about(result[name]["about"]), "", *sections[name](result[name])] if name in result else ["Not run."]
    return "\n".join([*lines, "", prose.PROFILE, *prose.better(result), ""])


def _about(about: Found) -> str:
    trial = "**A small trial, not a measurement.** " if "trial" in about["size"] else ""
    return (
        f"{trial}`{about['size']}`, {about['date']}, {about['seconds'] / 60:.0f} minutes on {about['cores']} cores "
        f"with both servers; PostgreSQL {about['postgres']}, Python {about['python']}."
    )


def _tools(result: Found) -> list[str]:
    known = {name: tool for part in result.values() for name, tool in part["about"]["tools"].items()}
    rows = [f"| {tool['label']} | {', '.join(tool['versions'])} | {tool['note']} |" for tool in known.values()]
    return ["| tool | versions | how it is used |", "|---|---|---|", *rows]


def _row(label: str, tools: Found, name: str, shown: str) -> str:
    loads = tools[name]["loads"]
    if not works(tools[name]):
        return f"| {label} | | | | | | | | {shown} |"
    figures = {figure: median(loads, figure) for figure in loads[0] if figure != "error"}
    return (
        f"| {label} | {figures['seconds']:.2f} s | {ratio(tools, name, 'seconds'):.2f} | {figures['copy_s']:.2f} s | "
        f"{figures['client_s']:.2f} s | {figures['server_s']:.2f} s | {figures['memory_mb']:.0f} MB | "
        f"{figures['size_mb']:.1f} MB | {shown} |"
    )


def _table(part: Found, tools: Found) -> list[str]:
    labels = {name: tool["label"] for name, tool in part["about"]["tools"].items()}
    order = sorted(tools, key=lambda name: median(tools[name]["loads"], "seconds"))
    head = "| tool | wall | of `tick` | without start | client CPU | server CPU | peak memory | written | values |"
    rows = [_row(labels[name], tools, name, values(tools[name])) for name in order]
    return [head, "|---|---|---|---|---|---|---|---|---|", *rows]


def _first_load(part: Found) -> list[str]:
    lines = [prose.FIRST_LOAD.format(rounds=part["about"]["rounds"]), "", "![seconds](performance/first_load.svg)"]
    for found in part["found"].values():
        lines += ["", f"**{found['rows']:,} {found['label']}**", "", *_table(part, found["tools"])]
    return [*lines, "", "![memory](performance/memory.svg)"]


def _edges(part: Found) -> list[str]:
    tools = part["about"]["tools"]
    head = f"| value | {' | '.join(tool['label'] for tool in tools.values())} |"
    rows = [
        f"| `{label}` | {' | '.join(prose.WORDS[words[name]] for name in tools)} |"
        for label, words in part["found"].items()
    ]
    return [prose.EDGES, "", head, "|---" * (len(tools) + 1) + "|", *rows]


def _incremental(part: Found) -> list[str]:
    found = part["found"]
    intro = prose.INCREMENTAL.format(rows=found["rows"], new=found["new"], rounds=part["about"]["rounds"])
    return [intro, "", "![seconds](performance/incremental.svg)", "", *_table(part, found["tools"])]


def _writers(part: Found) -> list[str]:
    found, labels = part["found"], part["about"]["tools"]
    rows = [
        f"| {labels[name]['label']} | {tool['copies']:,} | {tool['lost']:,} | {tool['doubled']:,} | "
        f"{sum(tool['errors'].values()):,} |"
        for name, tool in sorted(found["tools"].items(), key=lambda item: item[1]["lost"])
    ]
    head = ["| tool | copies | rows lost for good | rows doubled | copies that failed |", "|---|---|---|---|---|"]
    intro = prose.WRITERS.format(**{name: found[name] for name in ("seconds", "writers", "rows")})
    return [intro, "", "![lost rows](performance/writers.svg)", "", *head, *rows]


def plots(result: Found) -> dict[str, str]:
    """Return the plots by their file names."""
    drawn = {}
    if part := result.get("first_load"):
        drawn["first_load.svg"] = plot.svg(_panels(part, "seconds", "seconds", 2))
        drawn["memory.svg"] = plot.svg(_panels(part, "memory_mb", "peak memory, MB", 0))
    if part := result.get("incremental"):
        found = part["found"]
        title = f"{found['new']:,} new rows in {found['rows']:,}, seconds"
        drawn["incremental.svg"] = plot.svg([_panel(part, found["tools"], "seconds", title, 2)])
    if part := result.get("writers"):
        tools, labels = part["found"]["tools"], part["about"]["tools"]
        bars = [
            plot.Bar(_plain(labels[name]["label"]), tool["lost"], f"{tool['lost']:,}", _color(name, tool["lost"] > 0))
            for name, tool in sorted(tools.items(), key=lambda item: item[1]["lost"])
        ]
        drawn["writers.svg"] = plot.svg([plot.Panel(f"rows lost of {part['found']['rows']:,}", bars)])
    return drawn


def _panels(part: Found, figure: str, unit: str, digits: int) -> list[plot.Panel]:
    return [
        _panel(part, found["tools"], figure, f"{found['rows']:,} {found['label'].replace('`', '')}, {unit}", digits)
        for found in part["found"].values()
    ]


def _panel(part: Found, tools: Found, figure: str, title: str, digits: int) -> plot.Panel:
    labels = part["about"]["tools"]
    medians = {name: median(tool["loads"], figure) for name, tool in tools.items() if works(tool)}
    bars = [
        plot.Bar(
            _plain(labels[name]["label"]), value, f"{value:,.{digits}f}", _color(name, "wrong" in values(tools[name]))
        )
        for name, value in sorted(medians.items(), key=lambda item: item[1])
    ]
    return plot.Panel(title, bars)


def _color(name: str, wrong: bool) -> str:
    return plot.WRONG if wrong else plot.OURS if name in OURS else plot.PEER


def _plain(label: str) -> str:
    return label.replace("`", "")


if __name__ == "__main__":
    write(stored())
