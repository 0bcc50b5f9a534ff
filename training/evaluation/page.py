"""The report as one page that needs no other file and no network."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from training.evaluation import template
from training.evaluation.gallery import Exhibit, Gallery
from training.evaluation.histogram import histogram

_LABELS = {
    "covered_psnr": "PSNR, covered pixels, dB",
    "uncovered_psnr": "PSNR, uncovered pixels, dB",
    "psnr": "PSNR, all pixels, dB",
    "covered_ssim": "SSIM, covered pixels",
    "ssim": "SSIM, all pixels",
}
_PIXELS = {"covered_psnr": "covered pixels", "psnr": "all pixels"}


def _number(value: float | None, measure: str, sign: bool = False) -> str:
    if value is None:
        return "\N{EN DASH}"
    digits = 3 if measure.endswith("ssim") else 2
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _stages(figures: dict[str, Any], measure: str) -> list[str]:
    """Before, after and gain of a measure, as a table shows them."""
    return [_number(figures[f"{measure}_{stage}"], measure, stage == "gain") for stage in ("in", "out", "gain")]


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the cells are markup already. It scrolls by itself where a screen is narrower, by keyboard too."""
    lines = [
        f'<div class="wide" tabindex="0" role="region" aria-label="{caption}">',
        f"<table><caption>{caption}</caption>",
        "<thead><tr>" + "".join(f'<th scope="col">{cell}</th>' for cell in head) + "</tr></thead><tbody>",
    ]
    for first, *others in rows:
        lines.append(f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def _spec(text: str) -> str:
    """A spec as markup; a narrow screen breaks it between its parts."""
    parts = re.sub("([:,+|])", r"\1<wbr>", escape(text))
    return f"<code>{parts}</code>"


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _comparison(exhibit: Exhibit, measure: str) -> str:
    row = exhibit.row
    before, after, gain = _stages(row, measure)
    shown = "" if exhibit.size == (row["width"], row["height"]) else f", shown at {exhibit.size[0]} x {exhibit.size[1]}"
    return template.COMPARISON.substitute(
        name=escape(row["picture"]),
        width=exhibit.size[0],
        height=exhibit.size[1],
        before=_data_uri(exhibit.before),
        after=_data_uri(exhibit.after),
        caption=f"{escape(row['picture'])}<br><b>{before} \N{RIGHTWARDS ARROW} {after} dB</b> ({gain})<br>"
        f'<span class="soft">picture {row["number"]}, {row["width"]} x {row["height"]}{shown}, '
        f"{100 * row['covered_share']:.1f} % covered</span>",
    )


def _section(part: dict[str, Any], rows: Sequence[dict[str, Any]], gallery: Gallery) -> str:
    """What one corruption did."""
    figures, measure = part["figures"], gallery.measure
    cells = []
    for name, label in _LABELS.items():
        means, medians = (
            _stages({key: figure[statistic] for key, figure in figures.items()}, name)
            for statistic in ("mean", "median")
        )
        both = [f"{mean}<small>{median}</small>" for mean, median in zip(means, medians)]
        cells.append([label, *both, str(figures[f"{name}_in"]["pictures"])])
    gains = [row[f"{measure}_gain"] for row in rows if row[f"{measure}_gain"] is not None]
    share = figures["covered_share"]["mean"]
    covers = f"Covers {100 * share:.1f} % of the pixels, on average." if share else "Covers nothing."
    lines = [
        f"<section><h2>{_spec(part['spec'])}</h2>",
        f"<p>{covers}</p>",
        '<div class="figures">',
        _table("Means, and medians in small", ["Measure", "Before", "After", "Gain", "Pictures"], cells),
        histogram(gains, f"pictures by gain over {_PIXELS[measure]}"),
        "</div>",
    ]
    for title, exhibits in (("Least gain", gallery.worst), ("Most gain", gallery.best)):
        if exhibits:
            shown = "".join(_comparison(exhibit, measure) for exhibit in exhibits)
            lines.append(f'<h3>{title} over {_PIXELS[measure]}</h3>\n<ul class="pictures">\n{shown}</ul>')
    return "\n".join([*lines, "</section>"])


def _head(summary: dict[str, Any]) -> str:
    model, pictures, arguments = summary["model"], summary["pictures"], summary["arguments"]
    crop = f"centre crops of up to {arguments['side']} pixels a side" if arguments["side"] else "whole"
    entries = {
        "Model": f"<code>{escape(model['path'])}</code>",
        "Step": escape(str(model["step"])) if model["step"] is not None else None,
        "In validation": f"{_number(model['validation_psnr'], 'psnr')} dB" if model["validation_psnr"] else None,
        "Pictures": f"{pictures['evaluated']} of {pictures['found']}, {crop}, from "
        f"<code>{escape(arguments['images'])}</code>",
        "Seed": str(arguments["seed"]),
    }
    lines = [f"<dt>{name}</dt><dd>{value}</dd>" for name, value in entries.items() if value]
    return "<dl>\n" + "\n".join(lines) + "\n</dl>"


def _overview(summary: dict[str, Any]) -> str:
    rows = []
    for part in summary["specs"]:
        figures = {name: figure["mean"] for name, figure in part["figures"].items()}
        if figures["covered_share"]:
            others = _stages(figures, "uncovered_psnr")[1]
            rows.append([_spec(part["spec"]), *_stages(figures, "covered_psnr"), others])
        else:
            name = f"{_spec(part['spec'])}<small>covers nothing: all pixels</small>"
            rows.append([name, *_stages(figures, "psnr"), _number(None, "psnr")])
    return _table(
        "Mean PSNR in dB over covered pixels, and over the others after restoration",
        ["Corruption", "Before", "After", "Gain", "Others"],
        rows,
    )


def _failures(failed: Sequence[dict[str, str]]) -> str:
    if not failed:
        return ""
    items = "".join(f"<li><code>{escape(one['picture'])}</code>: {escape(one['reason'])}</li>" for one in failed)
    return f"<section><h2>Not evaluated: {len(failed)}</h2><ul>{items}</ul></section>"


def render(summary: dict[str, Any], rows: Sequence[Sequence[dict[str, Any]]], galleries: Sequence[Gallery]) -> str:
    """Writes the page.

    Args:
      summary: what summary.json holds, see `training.evaluate`.
      rows: of pictures.csv, a sequence a corruption.
      galleries: what to show of each corruption.

    Returns:
      HTML; pictures are inside as data URIs, and names are escaped.
    """
    sections = [_section(*triple) for triple in zip(summary["specs"], rows, galleries)]
    note = (
        '<p class="note">PSNR is a mean over pictures; 68.13 dB stands for an exact one. SSIM has no value below 11 '
        "pixels a side. pictures.csv beside this page has a row for each picture and corruption, summary.json these "
        "figures.</p>"
    )
    return template.PAGE.substitute(
        title="How well overlays are removed",
        head=_head(summary),
        body="\n".join([_overview(summary), note, _failures(summary["pictures"]["failed"]), *sections]),
    )
