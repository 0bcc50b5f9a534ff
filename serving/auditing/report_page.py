"""Renders the audit report as one self-contained HTML page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from serving.auditing import grades, verdict
from serving.auditing.attacks import UNTOUCHED
from serving.auditing.trials import Trial
from training.evaluation import page_parts, template

_GREY = (128, 128, 128)
_MARK_SIDE, _MARGIN = 300, 16  # pixels; larger marks are scaled down
_DASH = "\N{EN DASH}"
_MEASURES = {
    "covered_psnr": "Covered, dB",
    "covered_ssim": "Covered, SSIM",
    "psnr": "All pixels, dB",
    "ssim": "All pixels, SSIM",
}


def _letter(grade: str | None) -> str:
    return f"<b>{grade or _DASH}</b>"


def _with_gain(values: dict[str, float | None], measure: str) -> str:
    _, after, gain = page_parts.stages(values, measure)
    return f"{after}<small>{gain}</small>"


def _attack(result: dict[str, Any]) -> str:
    return f"{escape(result['attack'])}<small>{escape(result['encoding'])}</small>"


def _mark(rgba: np.ndarray, caption: str) -> str:
    """Formats a mark over gray, with a caption that may contain markup."""
    mark = Image.fromarray(rgba)
    ground = Image.new("RGBA", (mark.width + 2 * _MARGIN, mark.height + 2 * _MARGIN), (*_GREY, 255))
    ground.alpha_composite(mark, (_MARGIN, _MARGIN))
    ground.thumbnail((_MARK_SIDE, _MARK_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    ground.convert("RGB").save(file, "JPEG", quality=90, subsampling=0)
    width, height = ground.size
    source = page_parts.data_uri(file.getvalue())
    return (
        f'<li><figure><img src="{source}" width="{width}" height="{height}" alt="{caption}" '
        f'style="display: block; max-width: 100%; height: auto; margin: 0 auto">'
        f"<figcaption>{caption}</figcaption></figure></li>"
    )


def _marks(laid: np.ndarray, trials: Sequence[Trial]) -> str:
    """Formats the mark that was applied and the estimates of it."""
    estimates = [
        _mark(trial.estimate, f"{escape(trial.attack)}, {escape(trial.encoding)}")
        for trial in trials
        if trial.estimate is not None
    ]
    if not estimates:
        return ""
    shown = "\n".join([_mark(laid, "the mark as it was laid"), *estimates])
    return f'<h3>The mark, and what copies revealed of it, over grey</h3>\n<ul class="pictures">\n{shown}</ul>'


def _rows(defence: dict[str, Any]) -> list[list[str]]:
    rows = []
    for result in defence["results"]:
        if result["not_found"]:
            rows.append([_attack(result), *["not found", *[_DASH] * 5]])
            continue
        values = verdict.means(result)
        located = _DASH if result["located"] is None else f"{result['located']} of {result['pictures']}"
        cells = [_with_gain(values, measure) for measure in _MEASURES]
        rows.append([_attack(result), *cells, located, _letter(result["grade"])])
    return rows


def _section(defence: dict[str, Any], laid: np.ndarray, trials: Sequence[Trial]) -> str:
    """Formats the results of all attacks on the mark with one defense."""
    lines = [
        f"<section><h2>{escape(defence['defence'])}: grade {defence['grade'] or _DASH}</h2>",
        f"<p>{escape(defence['meaning'])}. {page_parts.spec(defence['spec'])}</p>",
        page_parts.table(
            "After the attack, means over pictures; in small the gain over the marked copy",
            ["Attack", *_MEASURES.values(), "Located", "Grade"],
            _rows(defence),
        ),
    ]
    reasons = {result["not_found"]: result["attack"] for result in defence["results"] if result["not_found"]}
    lines += [f'<p class="note">{escape(name)}: {escape(reason)}</p>' for reason, name in reasons.items()]
    lines.append(_marks(laid, trials))
    best = verdict.strongest([result for result in defence["results"] if result["attack"] != UNTOUCHED])
    if best:
        trial = next(one for one in trials if (one.attack, one.encoding) == (best["attack"], best["encoding"]))
        exhibits = [*trial.gallery.worst, *trial.gallery.best]
        if exhibits:
            shown = "".join(page_parts.comparison(exhibit, trial.gallery.measure) for exhibit in exhibits)
            title = f"{escape(trial.attack)}, {escape(trial.encoding)}: least gain first, most gain last"
            lines.append(f'<h3>{title}</h3>\n<ul class="pictures">\n{shown}</ul>')
    return "\n".join([*lines, "</section>"])


def _overview(summary: dict[str, Any]) -> str:
    rows = []
    for defence in summary["defences"]:
        seen, best = defence["visibility"], verdict.strongest(defence["results"])
        cells = []
        for measure in ("covered_psnr", "covered_ssim"):
            change = seen[f"{measure}_change"]
            change = "" if change is None else f"<small>{page_parts.number(change, measure, sign=True)}</small>"
            cells.append(page_parts.number(seen[measure], measure) + change)
        if best:
            values = verdict.means(best)
            cells += [_attack(best), *(_with_gain(values, measure) for measure in ("covered_psnr", "covered_ssim"))]
        else:
            cells += [_DASH] * 3
        name = f"{escape(defence['defence'])}<small>{escape(defence['meaning'])}</small>"
        rows.append([name, _letter(defence["grade"]), *cells])
    return page_parts.table(
        "Covered pixels: how visible the mark is (copy against clean picture, lower is more visible, in small the "
        "change from plain), and what the strongest attack leaves",
        ["Laid", "Grade", "Copy, dB", "Copy, SSIM", "Strongest attack", "After, dB", "After, SSIM"],
        rows,
    )


def _rule() -> str:
    rows = [
        [f"<b>{step.grade}</b>", f"{step.covered_psnr:g}", f"{step.covered_ssim:g}", escape(step.meaning)]
        for step in grades.STEPS
    ]
    rows.append([f"<b>{grades.BEST}</b>", _DASH, _DASH, escape(grades.HOLDS)])
    return page_parts.table(
        "Grades: the strongest attack reaches both, over covered pixels, mean over pictures",
        ["Grade", "PSNR, dB, at least", "SSIM, at least", "What is left of the mark"],
        rows,
    )


def _head(summary: dict[str, Any]) -> str:
    pictures, arguments, model = summary["pictures"], summary["arguments"], summary["model"]
    left_out = "; ".join(f"{escape(one['attack'])}: {escape(one['reason'])}" for one in summary["left_out"])
    return page_parts.entries(
        {
            "Mark": f"<code>{escape(arguments['canvas'])}</code>, {summary['mark']['width']} x "
            f"{summary['mark']['height']}",
            "Grade": f'<b style="font-size: 2.5rem; line-height: 1">{summary["grade"] or _DASH}</b>',
            "Pictures": f"{pictures['restored']} restored, {pictures['read']} read, of {pictures['found']}; centre "
            f"crops of up to {arguments['side']} pixels a side, from <code>{escape(arguments['images'])}</code>",
            "JPEG": f"quality {arguments['quality']}",
            "Blind model": f"<code>{escape(model['path'])}</code>" if model else None,
            "Left out": left_out or None,
            "Seed": str(arguments["seed"]),
        }
    )


def render(summary: dict[str, Any], laid: Sequence[np.ndarray], trials: Sequence[Sequence[Trial]]) -> str:
    """Renders the page.

    Args:
      summary: the content of summary.json, see `serving.audit`.
      laid: the mark that each defense applies, uint8 `[h, w, 4]`.
      trials: the trials of each defense.

    Returns:
      HTML, with images as data URIs and names escaped.
    """
    note = (
        '<p class="note">"untouched" is the marked copy itself: a mark that is hardly visible need not be attacked. '
        '"keyed" has the file of the mark; "estimated-N" estimates it from N marked copies first. SSIM is over '
        "windows about covered pixels. pictures.csv beside this page has a row for each picture and attack, "
        "summary.json these figures.</p>"
    )
    sections = [_section(*triple) for triple in zip(summary["defences"], laid, trials)]
    failures = page_parts.failures(summary["pictures"]["failed"])
    return template.PAGE.substitute(
        title="How well the mark holds",
        head=_head(summary),
        body="\n".join([_overview(summary), _rule(), note, failures, *sections]),
    )
