"""A comparison of two runs as one self-contained HTML page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows import present
from flows.compare import Comparison

COLORS = ("#1f5fa8", "#c2571a")
LEFT = 0.1
"""Left edge of the axes as a fraction of a figure's width: the same in all, so that they are aligned."""
SMOOTHED = 50
"""Points of a run's smoothed line: each is the mean of its part, over a pale line of every step."""
PLOTS = (("loss", "loss, nats per token"), ("grad_norm", "gradient norm"), ("learning_rate", "learning rate"))

_STYLE = (
    "body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 62rem; margin: 0 auto; padding: 2rem }"
    "h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem } svg { width: 100%; height: auto }"
    "table { border-collapse: collapse } th, td { padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #ddd }"
    ".tables { columns: 26rem; column-gap: 3rem } section { break-inside: avoid }"
    ".tables h2 { margin-top: 0; padding-top: 1.5rem }"
    "th { text-align: left; font-weight: 600 } .number { text-align: right; font-variant-numeric: tabular-nums }"
    f".first {{ color: {COLORS[0]} }} .second {{ color: {COLORS[1]} }}"
)


def comparison_page(comparison: Comparison) -> str:
    """The page's HTML."""
    import matplotlib

    matplotlib.use("svg")
    first, second = (escape(name) for name in comparison.names)
    changes = "".join(f"<li><code>{escape(line)}</code></li>" for line in comparison.differences)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{first} and {second}</title><style>{_STYLE}</style></head>
<body>
<h1><span class="first">{first}</span> and <span class="second">{second}</span></h1>
<h2>Differences</h2>
{f"<ul>{changes}</ul>" if changes else "<p>None in recipe and data.</p>"}
<h2>Curves</h2>
{_against_tokens(comparison)}
{_against_seconds(comparison)}
<div class="tables">
{_section("Results", comparison.ends)}
{_section("Held-out bits per byte, by source", comparison.held_out)}
{_section("Seconds by phase", comparison.times)}
{_section("Losses at equal tokens", comparison.losses)}
</div>
</body>
</html>
"""


def _section(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a heading; empty if there are no rows."""
    if not rows:
        return ""
    columns = list(rows[0])
    kinds = {c: ' class="number"' if all(isinstance(r[c], int | float | None) for r in rows) else "" for c in columns}
    head = "".join(f'<th{kinds[c]}><span class="{escape(c)}">{escape(c)}</span></th>' for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td{kinds[c]}>{escape(_words(c, row[c]))}</td>" for c in columns) + "</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<section><h2>{escape(title)}</h2>{table}</section>"


def _words(column: str, value: Any) -> str:
    return value.replace("_", " ") if column == "what" else present.text(value)


def _against_tokens(comparison: Comparison) -> str:
    """Loss, bits per byte, gradient norm and learning rate, one below the other."""
    from matplotlib import pyplot

    heights = (6, 4, 3, 3)
    figure, axes = pyplot.subplots(len(heights), 1, figsize=(9, 11), sharex=True, height_ratios=heights)
    loss, bits, *others = axes
    for axis, (name, label) in zip((loss, *others), PLOTS, strict=True):
        for run, curve, color in zip(comparison.names, comparison.curves, COLORS, strict=True):
            tokens, values = curve["tokens"], curve[name]
            axis.plot(tokens, values, color=color, alpha=0.25, linewidth=0.8)
            axis.plot(_smooth(tokens), _smooth(values), color=color, linewidth=1.6, label=run)
        axis.set_ylabel(label)
    _bits_per_byte(bits, comparison, "tokens")
    loss.legend(frameon=False)
    axes[-1].set_xlabel("tokens")
    axes[-1].xaxis.set_major_formatter(_short_numbers())
    return _svg(figure)


def _against_seconds(comparison: Comparison) -> str:
    """Bits per byte against training time."""
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 3))
    _bits_per_byte(axis, comparison, "seconds")
    axis.set_xlabel("seconds of training")
    return _svg(figure)


def _bits_per_byte(axis: Any, comparison: Comparison, over: str) -> None:
    for run, found, color in zip(comparison.names, comparison.validations, COLORS, strict=True):
        axis.plot(getattr(found, over), found.bits_per_byte, color=color, marker="o", markersize=4, label=run)
    axis.set_ylabel("bits per byte, held out")


def _short_numbers() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def _svg(figure: Any) -> str:
    from matplotlib import pyplot

    for axis in figure.axes:
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    figure.tight_layout()
    figure.subplots_adjust(left=LEFT)
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    pyplot.close(figure)
    return content.getvalue()[content.getvalue().index("<svg") :]


def _smooth(values: NDArray[Any]) -> NDArray[Any]:
    """Means of `SMOOTHED` parts."""
    return np.array([part.mean() for part in np.array_split(values, min(SMOOTHED, len(values)))])
