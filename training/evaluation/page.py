"""The report as a single page that needs no other files and no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from training.evaluation import page_parts, template
from training.evaluation.gallery import Gallery
from training.evaluation.histogram import histogram

_LABELS = {
    "covered_psnr": "PSNR, covered pixels, dB",
    "uncovered_psnr": "PSNR, uncovered pixels, dB",
    "psnr": "PSNR, all pixels, dB",
    "covered_ssim": "SSIM, covered pixels",
    "ssim": "SSIM, all pixels",
}
_PIXELS = {"covered_psnr": "covered pixels", "psnr": "all pixels"}


def _section(part: dict[str, Any], rows: Sequence[dict[str, Any]], gallery: Gallery) -> str:
    """Renders the section of one corruption."""
    figures, measure = part["figures"], gallery.measure
    cells = []
    for name, label in _LABELS.items():
        means, medians = (
            page_parts.stages({key: figure[statistic] for key, figure in figures.items()}, name)
            for statistic in ("mean", "median")
        )
        both = [f"{mean}<small>{median}</small>" for mean, median in zip(means, medians)]
        cells.append([label, *both, str(figures[f"{name}_in"]["pictures"])])
    gains = [row[f"{measure}_gain"] for row in rows if row[f"{measure}_gain"] is not None]
    share = figures["covered_share"]["mean"]
    covers = f"Covers {100 * share:.1f} % of the pixels, on average." if share else "Covers nothing."
    lines = [
        f"<section><h2>{page_parts.spec(part['spec'])}</h2>",
        f"<p>{covers}</p>",
        '<div class="figures">',
        page_parts.table("Means, and medians in small", ["Measure", "Before", "After", "Gain", "Pictures"], cells),
        histogram(gains, f"pictures by gain over {_PIXELS[measure]}"),
        "</div>",
    ]
    for title, exhibits in (("Least gain", gallery.worst), ("Most gain", gallery.best)):
        if exhibits:
            shown = "".join(page_parts.comparison(exhibit, measure) for exhibit in exhibits)
            lines.append(f'<h3>{title} over {_PIXELS[measure]}</h3>\n<ul class="pictures">\n{shown}</ul>')
    return "\n".join([*lines, "</section>"])


def _head(summary: dict[str, Any]) -> str:
    model, pictures, arguments = summary["model"], summary["pictures"], summary["arguments"]
    crop = f"centre crops of up to {arguments['side']} pixels a side" if arguments["side"] else "whole"
    psnr = model["validation_psnr"]
    return page_parts.entries(
        {
            "Model": f"<code>{escape(model['path'])}</code>",
            "Step": escape(str(model["step"])) if model["step"] is not None else None,
            "In validation": f"{page_parts.number(psnr, 'psnr')} dB" if psnr else None,
            "Pictures": f"{pictures['evaluated']} of {pictures['found']}, {crop}, from "
            f"<code>{escape(arguments['images'])}</code>",
            "Seed": str(arguments["seed"]),
        }
    )


def _overview(summary: dict[str, Any]) -> str:
    rows = []
    for part in summary["specs"]:
        figures = {name: figure["mean"] for name, figure in part["figures"].items()}
        spec = page_parts.spec(part["spec"])
        if figures["covered_share"]:
            others = page_parts.stages(figures, "uncovered_psnr")[1]
            rows.append([spec, *page_parts.stages(figures, "covered_psnr"), others])
        else:
            name = f"{spec}<small>covers nothing: all pixels</small>"
            rows.append([name, *page_parts.stages(figures, "psnr"), page_parts.number(None, "psnr")])
    return page_parts.table(
        "Mean PSNR in dB over covered pixels, and over the others after restoration",
        ["Corruption", "Before", "After", "Gain", "Others"],
        rows,
    )


def render(summary: dict[str, Any], rows: Sequence[Sequence[dict[str, Any]]], galleries: Sequence[Gallery]) -> str:
    """Renders the page.

    Args:
      summary: the contents of summary.json, see `training.evaluate`.
      rows: rows of pictures.csv, one sequence per corruption.
      galleries: the images to show, one gallery per corruption.

    Returns:
      HTML with images embedded as data URIs and names escaped.
    """
    sections = [_section(*triple) for triple in zip(summary["specs"], rows, galleries)]
    note = (
        '<p class="note">PSNR is a mean over pictures; 68.13 dB stands for an exact one. SSIM has no value below 11 '
        "pixels a side. pictures.csv beside this page has a row for each picture and corruption, summary.json these "
        "figures.</p>"
    )
    failures = page_parts.failures(summary["pictures"]["failed"])
    return template.PAGE.substitute(
        title="How well overlays are removed",
        head=_head(summary),
        body="\n".join([_overview(summary), note, failures, *sections]),
    )
