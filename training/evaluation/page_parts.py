"""What pages are put together from: figures as text, tables, and pictures with a divider between before and after."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from training.evaluation import figures, template
from training.evaluation.gallery import Exhibit


def number(value: float | None, measure: str, sign: bool = False) -> str:
    """A figure, with as many digits as its measure (one of `figures.MEASURES`) deserves; a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    digits = 3 if measure.endswith("ssim") else 2
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def stages(values: dict[str, Any], measure: str) -> list[str]:
    """Before, after and gain of a measure, as a table shows them."""
    return [number(values[f"{measure}_{stage}"], measure, stage == "gain") for stage in figures.STAGES]


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the cells are markup already. It scrolls by itself where a screen is narrower, by keyboard too."""
    lines = [
        f'<div class="wide" tabindex="0" role="region" aria-label="{caption}">',
        f"<table><caption>{caption}</caption>",
        "<thead><tr>" + "".join(f'<th scope="col">{cell}</th>' for cell in head) + "</tr></thead><tbody>",
    ]
    for first, *others in rows:
        lines.append(f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def spec(text: str) -> str:
    """A spec as markup; a narrow screen breaks it between its parts."""
    parts = re.sub("([:,+|])", r"\1<wbr>", escape(text))
    return f"<code>{parts}</code>"


def entries(values: dict[str, str | None]) -> str:
    """A list of names and what they stand for, markup; those that stand for nothing are left out."""
    lines = [f"<dt>{name}</dt><dd>{value}</dd>" for name, value in values.items() if value]
    return "<dl>\n" + "\n".join(lines) + "\n</dl>"


def data_uri(jpeg: bytes) -> str:
    """A JPEG as an address that holds it."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def comparison(exhibit: Exhibit, measure: str) -> str:
    """A picture before and after, its divider, and its figures: `measure` is one of `figures.MEASURES`, in dB."""
    row = exhibit.row
    before, after, gain = stages(row, measure)
    shown = "" if exhibit.size == (row["width"], row["height"]) else f", shown at {exhibit.size[0]} x {exhibit.size[1]}"
    return template.COMPARISON.substitute(
        name=escape(row["picture"]),
        width=exhibit.size[0],
        height=exhibit.size[1],
        before=data_uri(exhibit.before),
        after=data_uri(exhibit.after),
        caption=f"{escape(row['picture'])}<br><b>{before} \N{RIGHTWARDS ARROW} {after} dB</b> ({gain})<br>"
        f'<span class="soft">picture {row["number"]}, {row["width"]} x {row["height"]}{shown}, '
        f"{100 * row['covered_share']:.1f} % covered</span>",
    )


def failures(failed: Sequence[dict[str, str]]) -> str:
    """The pictures that were left out, with the `reason`; nothing if there are none."""
    if not failed:
        return ""
    items = "".join(f"<li><code>{escape(one['picture'])}</code>: {escape(one['reason'])}</li>" for one in failed)
    return f"<section><h2>Not evaluated: {len(failed)}</h2><ul>{items}</ul></section>"
