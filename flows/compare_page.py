"""A comparison of two runs as one HTML page that needs nothing else."""

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
SMOOTHED = 50
"""Marks along a run's line: each is the mean of its part, over a pale line of every step."""
PLOTS = (("loss", "loss, nats a token"), ("grad_norm", "norm of the gradient"), ("learning_rate", "learning rate"))

_STYLE = (
    "body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 62rem; margin: 2rem auto }"
    "h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem } svg { width: 100%; height: auto }"
    "table { border-collapse: collapse } th, td { padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #ddd }"
    "th { text-align: left; font-weight: 600 } .number { text-align: right; font-variant-numeric: tabular-nums }"
    f".first {{ color: {COLORS[0]} }} .second {{ color: {COLORS[1]} }}"
)


def comparison_page(comparison: Comparison) -> str:
    """The page's HTML."""
    first, second = (escape(name) for name in comparison.names)
    changes = "".join(f"<li><code>{escape(line)}</code></li>" for line in comparison.differences)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{first} and {second}</title><style>{_STYLE}</style></head>
<body>
<h1><span class="first">{first}</span> and <span class="second">{second}</span></h1>
<h2>What is different</h2>
{f"<ul>{changes}</ul>" if changes else "<p>Nothing in recipe and data.</p>"}
<h2>Curves</h2>
{_plots(comparison)}
<h2>Losses at equal tokens</h2>
{_table(comparison.losses)}
<h2>What they came to</h2>
{_table(comparison.ends)}
</body>
</html>
"""


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(rows[0])
    kinds = {c: ' class="number"' if all(isinstance(r[c], int | float | None) for r in rows) else "" for c in columns}
    head = "".join(f"<th{kinds[c]}>{escape(c.replace('_', ' '))}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td{kinds[c]}>{escape(present.text(row[c]))}</td>" for c in columns) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plots(comparison: Comparison) -> str:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(PLOTS), 1, figsize=(9, 9), sharex=True, height_ratios=(3, 1, 1))
    for axis, (name, label) in zip(axes, PLOTS, strict=True):
        for run, curve, color in zip(comparison.names, comparison.curves, COLORS, strict=True):
            tokens, values = curve["tokens"], curve[name]
            axis.plot(tokens, values, color=color, alpha=0.25, linewidth=0.8)
            axis.plot(_smooth(tokens), _smooth(values), color=color, linewidth=1.6, label=run)
        axis.set_ylabel(label)
        axis.grid(alpha=0.2)
    axes[0].legend(frameon=False)
    axes[-1].set_xlabel("tokens")
    axes[-1].xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
    figure.align_ylabels()
    figure.tight_layout()
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    pyplot.close(figure)
    return content.getvalue()[content.getvalue().index("<svg") :]


def _smooth(values: NDArray[Any]) -> NDArray[Any]:
    """Means of `SMOOTHED` parts."""
    return np.array([part.mean() for part in np.array_split(values, min(SMOOTHED, len(values)))])
