"""Bar charts as SVG text: panels one below the other, one bar for each tool. No numbers are computed here."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LABEL, BAR, GAP, VALUE = 820, 210, 18, 6, 90
OURS, PEER, WRONG = "#2f6f4f", "#8ba3b8", "#b4553f"
FONT = "font-family='Helvetica, Arial, sans-serif'"


@dataclass(frozen=True)
class Bar:
    """One bar. ``text`` is printed at its end; ``color`` is one of the three of this module."""

    label: str
    value: float
    text: str
    color: str


@dataclass(frozen=True)
class Panel:
    """The bars of one chart, in the order in which they are drawn."""

    title: str
    bars: Sequence[Bar]


def svg(panels: Sequence[Panel]) -> str:
    """Return the panels as one picture."""
    parts, top = [], 12
    for panel in panels:
        parts.append(f"<text x='12' y='{top + 14}' font-size='14' font-weight='bold'>{escape(panel.title)}</text>")
        top += 26
        most = max((bar.value for bar in panel.bars), default=0.0) or 1.0
        for bar in panel.bars:
            parts += _bar(bar, most, top)
            top += BAR + GAP
        top += 16
    head = f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{top}' viewBox='0 0 {WIDTH} {top}' {FONT}>"
    return "\n".join([head, "<rect width='100%' height='100%' fill='white'/>", *parts, "</svg>", ""])


def _bar(bar: Bar, most: float, top: int) -> list[str]:
    length = max(1.0, bar.value / most * (WIDTH - LABEL - VALUE - 24))
    middle = top + BAR * 0.72
    return [
        f"<text x='{LABEL}' y='{middle:.1f}' font-size='12' text-anchor='end'>{escape(bar.label)}</text>",
        f"<rect x='{LABEL + 8}' y='{top}' width='{length:.1f}' height='{BAR}' fill='{bar.color}'/>",
        f"<text x='{LABEL + 14 + length:.1f}' y='{middle:.1f}' font-size='12'>{escape(bar.text)}</text>",
    ]
