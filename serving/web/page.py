"""The app's page: drop images, compare each before and after, download all."""

from __future__ import annotations

import dataclasses
import html
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import gradio as gr

from common.command_line import UserError
from serving.restoring import untouched_pictures
from serving.restoring.remote import Restorer
from serving.web.uploads import Comparison, Failure, Upload, pack, restore_uploads

# System fonts only: the page loads nothing from other hosts.
THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="slate",
    font=[gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")],
    font_mono=[gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
).set(  # dark enough for white text
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_hover_dark="*primary_800",
    button_primary_text_color="white",
)
CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
#status p { margin: 0.25em 0; }
#status .problem { color: var(--error-text-color); }
/* Labels stand above pictures and not on them. */
#slider > label { position: static; }
#examples .grid-container, #thumbnails .grid-container {
  padding-top: 1.5em;
  grid-template-columns: repeat(auto-fill, minmax(6em, 1fr));  /* as many as a phone has room for */
}
#examples .grid-wrap, #thumbnails .grid-wrap { height: auto; min-height: 0; max-height: 20em; }
/* What was restored cannot be taken out of the list. */
#files .label-clear-button { display: none; }
"""
_VISITORS = 4  # visitors served at the same time; others wait
_KEPT_SECONDS = 24 * 3600  # age in seconds at which Gradio deletes temporary files
# How the summary introduces the images that a model left unchanged.
_REASONS = {
    untouched_pictures.MARK_NOT_FOUND: "Mark not found in",
    untouched_pictures.NOTHING_CHANGED: "Nothing to restore in",
}


@dataclasses.dataclass
class _Results:
    """A visitor's results and their folder, which is deleted with the next run or when the visitor leaves."""

    folder: pathlib.Path | None = None
    comparisons: list[Comparison] = dataclasses.field(default_factory=list)
    failures: list[Failure] = dataclasses.field(default_factory=list)

    def discard(self) -> None:
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def build(restorers: Mapping[str, Restorer], examples: Sequence[pathlib.Path], work_dir: pathlib.Path) -> gr.Blocks:
    """Lays out the page.

    Args:
      restorers: a connection per model, by the name that the page shows.
      examples: example images offered on the page.
      work_dir: the folder for result files.

    Returns:
      The page; launch it with `THEME` and `CSS`.
    """
    models = list(restorers)
    with gr.Blocks(title="Cleanplate", analytics_enabled=False, delete_cache=(3600, _KEPT_SECONDS)) as page:
        results = gr.State(_Results(), delete_callback=_Results.discard)
        gr.Markdown("# Cleanplate\nRemoves overlays (watermarks, date stamps, text) from photographs.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                pictures = gr.File(label="Pictures", file_count="multiple", height=220, elem_id="pictures")
                model = gr.Radio(models, value=models[0], label="Model", elem_id="model")
                button = gr.Button("Restore", variant="primary", elem_id="restore")
                if examples:
                    tray = gr.Gallery(
                        [str(path) for path in examples],
                        label="Examples: choose one, then Restore",
                        height="auto",
                        allow_preview=False,
                        interactive=False,
                        buttons=[],
                        elem_id="examples",
                    )
            with gr.Column(scale=3, min_width=320):
                status = gr.HTML(_paragraphs(["Drop pictures, or choose an example."]), elem_id="status")
                slider = gr.ImageSlider(
                    interactive=False, visible=False, buttons=["fullscreen"], max_height=620, elem_id="slider"
                )
                thumbnails = gr.Gallery(
                    label="Compare",
                    height="auto",
                    allow_preview=False,
                    interactive=False,
                    visible=False,
                    buttons=[],
                    elem_id="thumbnails",
                )
                files = gr.File(
                    label="Restored pictures", file_count="multiple", interactive=False, visible=False, elem_id="files"
                )
                everything = gr.DownloadButton("Download all", variant="primary", visible=False, elem_id="download_all")

        def restore(given: list[dict] | None, chosen: str, last: _Results) -> Iterator[dict]:
            """Restores the dropped images and shows each one when it is done."""
            last.discard()
            hidden = {part: gr.update(value=None, visible=False) for part in (slider, thumbnails, files, everything)}
            if not given:
                yield {results: _Results(), status: _paragraphs(problems=["Choose pictures first."]), **hidden}
                return
            now = _Results(pathlib.Path(tempfile.mkdtemp(dir=work_dir)))
            uploads = [Upload(file["orig_name"] or "picture", pathlib.Path(file["path"])) for file in given]
            yield {results: now, status: _progress(now, len(uploads)), **hidden}
            problem = []
            try:
                for outcome in restore_uploads(restorers[chosen], uploads, now.folder):
                    if isinstance(outcome, Failure):
                        now.failures.append(outcome)
                        yield {status: _progress(now, len(uploads))}
                        continue
                    now.comparisons.append(outcome)
                    shown = {slider: _compare(outcome)} if len(now.comparisons) == 1 else {}
                    yield {
                        status: _progress(now, len(uploads)),
                        thumbnails: gr.update(
                            value=[(str(one.thumbnail), _caption(one)) for one in now.comparisons],
                            visible=len(now.comparisons) > 1,
                        ),
                        **shown,
                    }
            except UserError as error:
                problem = [f"{str(error)[:1].upper()}{str(error)[1:]}."]
            last_words = {results: now, status: _summary(now, problem)}
            if now.comparisons:
                archive = now.folder / "restored.zip"
                pack(now.comparisons, archive)
                last_words[files] = gr.update(
                    value=[str(one.restored) for one in now.comparisons], label=_files_label(now), visible=True
                )
                last_words[everything] = gr.update(value=str(archive), visible=True)
            yield last_words

        def compare(now: _Results, chosen: gr.SelectData) -> dict:
            return _compare(now.comparisons[chosen.index])

        def take(chosen: gr.SelectData) -> list[str]:
            return [str(examples[chosen.index])]

        button.click(
            restore,
            [pictures, model, results],
            [results, status, slider, thumbnails, files, everything],
            preprocess=False,  # preprocessing would lose the files' names
            concurrency_limit=_VISITORS,
            show_progress="hidden",
            api_visibility="private",
        )
        thumbnails.select(compare, results, slider, show_progress="hidden", api_visibility="private")
        if examples:
            tray.select(take, None, pictures, show_progress="hidden", api_visibility="private")
    return page


def _compare(comparison: Comparison) -> dict:
    pair = (str(comparison.before), str(comparison.after))
    said = f"{comparison.untouched}: your file, unchanged" if comparison.untouched else "before | after"
    return gr.update(value=pair, label=f"{comparison.name}: {said}", visible=True)


def _caption(comparison: Comparison) -> str:
    return f"{comparison.name} ({comparison.untouched})" if comparison.untouched else comparison.name


def _files_label(results: _Results) -> str:
    """Labels the file list with the number of unchanged copies, which the file names cannot show."""
    copies = sum(bool(one.untouched) for one in results.comparisons)
    if not copies:
        return "Restored pictures"
    return "Unchanged pictures" if copies == len(results.comparisons) else f"Restored pictures, and {copies} unchanged"


def _progress(results: _Results, count: int) -> str:
    done = len(results.comparisons) + len(results.failures)
    return _paragraphs([f"Restoring: {done} of {count} done …"], _failed(results))


def _summary(results: _Results, problems: Sequence[str]) -> str:
    restored = sum(not one.untouched for one in results.comparisons)
    lines = [f"{restored or 'No'} picture{'s' * (restored != 1)} restored."] if results.comparisons else []
    for reason, words in _REASONS.items():
        names = [one.name for one in results.comparisons if one.untouched == reason]
        if names:
            lines.append(f"{words} {len(names)}, returned unchanged: {', '.join(names)}.")
    return _paragraphs(lines, [*problems, *_failed(results)])


def _failed(results: _Results) -> list[str]:
    return [f"{failure.name} could not be restored: {failure.reason}." for failure in results.failures]


def _paragraphs(lines: Sequence[str] = (), problems: Sequence[str] = ()) -> str:
    """Formats lines as HTML; file names in them are escaped."""
    said = [f"<p>{html.escape(line)}</p>" for line in lines]
    said += [f'<p class="problem">{html.escape(problem)}</p>' for problem in problems]
    return f'<div role="status">{"".join(said)}</div>'
