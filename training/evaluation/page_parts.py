"""The parts of a report page: formatted figures, tables, and before/after images with a movable divider."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from training.evaluation import figures, template
from training.evaluation.gallery import Exhibit


def number(value: float | None, measure: str, sign: bool = False) -> str:
    """Formats a figure with the digits appropriate for its measure (one of `figures.MEASURES`); None gives a dash."""
    if value is None:
        return "\N{EN DASH}"
    digits = 3 if measure.endswith("ssim") else 2
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def stages(values: dict[str, Any], measure: str) -> list[str]:
    """Formats a measure's figures before and after and its gain, for a table."""
    return [number(values[f"{measure}_{stage}"], measure, stage == "gain") for stage in figures.STAGES]


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Renders a table from cells of markup. On narrow screens it scrolls on its own, also by keyboard."""
    lines = [
        f'<div class="wide" tabindex="0" role="region" aria-label="{caption}">',
        f"<table><caption>{caption}</caption>",
        "<thead><tr>" + "".join(f'<th scope="col">{cell}</th>' for cell in head) + "</tr></thead><tbody>",
    ]
    for first, *others in rows:
        lines.append(f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def spec(text: str) -> str:
    """Renders a spec as markup that can break between its parts on a narrow screen."""
    parts = re.sub("([:,+|])", r"\1<wbr>", escape(text))
    return f"<code>{parts}</code>"


def entries(values: dict[str, str | None]) -> str:
    """Renders a description list of names and values, both markup; entries without a value are left out."""
    lines = [f"<dt>{name}</dt><dd>{value}</dd>" for name, value in values.items() if value]
    return "<dl>\n" + "\n".join(lines) + "\n</dl>"


def data_uri(jpeg: bytes) -> str:
    """Encodes a JPEG as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def comparison(exhibit: Exhibit, measure: str) -> str:
    """Renders an image before and after with a divider and its figures; `measure` is a PSNR in `figures.MEASURES`."""
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
    """Renders the list of images that were not evaluated, each with its `reason`; empty if there are none."""
    if not failed:
        return ""
    items = "".join(f"<li><code>{escape(one['picture'])}</code>: {escape(one['reason'])}</li>" for one in failed)
    return f"<section><h2>Not evaluated: {len(failed)}</h2><ul>{items}</ul></section>"
