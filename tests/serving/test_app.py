"""The page gives what the client writes, compares it, says what went wrong, and asks nobody else for anything."""

import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageOps

from common.command_line import UserError
from serving import app
from serving.client import Restorer
from serving.restoring.folder import restore_folder
from serving.web import uploads
from tests.serving.conftest import decoded, encoded

pytestmark = pytest.mark.slow

pytest.importorskip("gradio", reason="no Gradio; pip install 'cleanplate[demo]', with Python 3.10 or newer")

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE = 90_000  # milliseconds that a busy machine may take for anything at all


class _App:
    """The app in a process of its own, which keeps its files in a folder of ours."""

    def __init__(self, scratch, *arguments):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving.app", *arguments],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def address(self):
        """Waits until it is ready."""
        line = self._process.stdout.readline().strip()
        assert re.fullmatch(r"app at http://127\.0\.0\.1:\d+; stop with Ctrl-C", line), line or self.end()
        return line.split()[2].rstrip(";")

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._process.kill()
        self._process.communicate()

    def end(self, number=signal.SIGTERM):
        """Exit code, and what it said on stderr."""
        self._process.send_signal(number)
        said = self._process.communicate(timeout=60)[1]
        return self._process.returncode, said


@pytest.fixture(scope="module")
def pictures(photos):
    """Files by name, two photographs among them: one as it is, one that lies on its side."""
    coffee = Image.open(photos / "images" / "coffee.jpg")
    exif = Image.Exif()
    exif[0x0112], exif[0x8298] = 6, "somebody"  # orientation, copyright
    sideways = io.BytesIO()
    coffee.rotate(90, expand=True).save(sideways, "JPEG", quality=92, exif=exif)
    chelsea = np.asarray(Image.open(photos / "images" / "chelsea.jpg"))
    alpha = np.linspace(0, 255, chelsea[..., :1].size).astype(np.uint8).reshape(chelsea[..., :1].shape)
    return {
        "chelsea.jpg": (photos / "images" / "chelsea.jpg").read_bytes(),
        "Kaffee (1) & ü.JPG": sideways.getvalue(),
        "see through.png": encoded(np.concatenate([chelsea, alpha], axis=-1)),
        "broken <b>.jpg": (photos / "images" / "coffee.jpg").read_bytes()[:5000],
        "notes.txt": b"not a picture",
    }


@pytest.fixture(scope="module")
def address(server, photos, tmp_path_factory):
    """Where the app is, with two models and the photographs for examples."""
    arguments = [f"--server={server}", "--model_name=cleanplate,identity", f"--examples={photos / 'images'}"]
    with _App(tmp_path_factory.mktemp("scratch"), *arguments, "--port=0") as running:
        yield running.address()


@pytest.fixture
def open_page(browser):
    """Opens a page in a window of its own; what it complains of, or asks of anybody else, fails the test."""
    contexts, complaints, requests = [], [], []

    def open_(address):
        contexts.append(browser.new_context(viewport={"width": 1200, "height": 1000}))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(PATIENCE)
        tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(address)
        tab.get_by_role("button", name="Restore").wait_for()
        return tab

    yield open_
    homes = tuple(tab.evaluate("location.origin") for context in contexts for tab in context.pages)
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith((*homes, "data:", "blob:"))] == []


def restore(tab, files, model=None):
    """Uploads (name, content) pairs and presses the button."""
    payloads = [{"name": name, "mimeType": "", "buffer": content} for name, content in files]
    tab.locator("#pictures input[type=file]").set_input_files(payloads)
    for index in range(len(files)):
        tab.locator("#pictures .file").nth(index).wait_for()
    if model:
        tab.locator("#model").get_by_text(model, exact=True).click()
    return pressed(tab)


def pressed(tab):
    """Presses the button and returns what the page says when it is done."""
    tab.locator("#status [role=status]").evaluate("(old) => old.setAttribute('data-old', '')")
    tab.get_by_role("button", name="Restore").click()
    said = tab.locator("#status [role=status]:not([data-old])").filter(has_not_text="Restoring:")
    return said.inner_text()


def by_client(server, files, tmp_path, model="cleanplate"):
    """What the client writes for the same files, by name."""
    (tmp_path / "in").mkdir()
    for name, content in files:
        (tmp_path / "in" / name).write_bytes(content)
    with Restorer(server, model) as restorer:
        restore_folder(restorer, tmp_path / "in", tmp_path / "out", progress=False)
    return {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.suffix != ".jsonl"}


def downloaded(tab, link):
    """Name and bytes of what a click downloads."""
    with tab.expect_download() as download:
        link.click()
    return download.value.suggested_filename, pathlib.Path(download.value.path()).read_bytes()


def unpacked(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {info.filename: opened.read(info) for info in opened.infolist()}


def shown(tab):
    """The slider's two pictures: before and after, as the page got them."""
    images = tab.locator("#slider img")
    assert images.count() == 2
    return [decoded(tab.request.get(images.nth(side).get_attribute("src")).body()) for side in (0, 1)]


def test_the_downloads_are_the_clients_files_and_the_slider_compares_them(
    open_page, address, server, pictures, tmp_path
):
    files = [(name, pictures[name]) for name in ("chelsea.jpg", "Kaffee (1) & ü.JPG")]
    tab = open_page(address)
    assert restore(tab, files) == "2 pictures restored."
    expected = by_client(server, files, tmp_path)

    links = tab.locator("#files a[download]")
    assert dict(downloaded(tab, links.nth(number)) for number in range(links.count())) == expected
    name, archive = downloaded(tab, tab.get_by_role("button", name="Download all"))
    assert (name, unpacked(archive)) == ("restored.zip", expected)

    for (name, content), thumbnail in zip(files, tab.locator("#thumbnails button").all()):
        thumbnail.click()
        tab.locator("#slider label").get_by_text(f"{name}: before | after").wait_for()
        before, after = shown(tab)
        original = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
        assert before.shape == after.shape == original.shape
        assert np.abs(before.astype(int) - original).mean() < 2  # it went through a JPEG
        assert np.abs(after.astype(int) - decoded(expected[name])).mean() < 2
        assert np.abs(after.astype(int) - original).mean() > 5


def test_the_divider_follows_the_mouse(open_page, address, pictures):
    tab = open_page(address)
    restore(tab, [("chelsea.jpg", pictures["chelsea.jpg"])])
    after = tab.locator("#slider img").nth(1)
    box = after.bounding_box()
    x, y = (lambda share: box["x"] + share * box["width"]), box["y"] + 0.25 * box["height"]

    def divided_at(share):
        tab.wait_for_function(
            """([image, share]) => {
              const cut = getComputedStyle(image).clipPath.match(/ ([\\d.]+)%\\)$/);
              return cut && Math.abs(cut[1] - 100 * share) < 2;
            }""",
            arg=[after.element_handle(), share],
        )

    def patch():
        picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
        return np.asarray(picture.crop((round(x(0.3)), round(y) - 20, round(x(0.3)) + 20, round(y)))).astype(int)

    divided_at(0.5)
    before = patch()
    handle = tab.locator("#slider [role=none] .inner, #slider .outer").first.bounding_box()
    grip = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    tab.mouse.move(*grip)
    tab.mouse.down()
    tab.mouse.move(x(0.1), y)
    divided_at(0.1)
    assert np.abs(patch() - before).mean() > 5  # what was before is after now
    tab.mouse.move(x(0.8), y)
    tab.mouse.up()
    divided_at(0.8)
    assert np.abs(patch() - before).mean() < 1


def test_the_model_that_is_chosen_restores(open_page, address, server, pictures, tmp_path):
    files = [("see through.png", pictures["see through.png"])]
    tab = open_page(address)
    unchanged = "No pictures restored.\n\nNothing to restore in 1, returned unchanged: see through.png."
    assert restore(tab, files, "identity") == unchanged
    name, content = downloaded(tab, tab.locator("#files a[download]"))
    assert {name: content} == by_client(server, files, tmp_path, "identity")
    assert content == files[0][1]
    assert tab.locator("#slider label").inner_text().strip() == "see through.png: nothing changed: your file, unchanged"
    assert tab.locator("#files").get_by_text("Unchanged pictures").is_visible()
    assert pressed(tab) == unchanged


def test_a_bad_file_among_good_ones_gets_a_sentence_and_names_are_unique(open_page, address, pictures):
    names = ["chelsea.jpg", "broken <b>.jpg", "notes.txt", "chelsea.jpg"]
    tab = open_page(address)
    said = restore(tab, [(name, pictures[name]) for name in names])
    restored, broken, text = filter(None, said.splitlines())
    assert restored == "2 pictures restored."
    assert broken.startswith("broken <b>.jpg could not be restored: ")
    assert text.startswith("notes.txt could not be restored: not a JPEG, PNG")
    assert "Traceback" not in tab.content()
    _, archive = downloaded(tab, tab.get_by_role("button", name="Download all"))
    first, second = unpacked(archive).items()
    assert (first[0], second[0]) == ("chelsea.jpg", "chelsea-2.jpg") and first[1] == second[1]


def test_an_example_is_two_clicks_away(open_page, address, photos):
    tab = open_page(address)
    assert pressed(tab) == "Choose pictures first."
    examples = sorted(path.name for path in (photos / "images").iterdir())
    assert tab.locator("#examples button").count() == len(examples)
    tab.locator("#examples button").nth(examples.index("chelsea.jpg")).click()
    tab.locator("#pictures .file").wait_for()
    assert pressed(tab) == "1 picture restored."
    assert tab.locator("#slider label").inner_text().strip() == "chelsea.jpg: before | after"


def test_a_server_that_is_down_is_a_sentence_and_the_end_is_a_good_one(open_page, pictures, tmp_path):
    with _App(tmp_path, "--server=localhost:1", "--port=0") as running:
        tab = open_page(running.address())
        said = restore(tab, [("chelsea.jpg", pictures["chelsea.jpg"])])
        assert said.startswith("No server answers at localhost:1; start one with python -m serving.server")
        assert len(said.splitlines()) == 1 and "Traceback" not in tab.content()
        assert not tab.locator("#slider").is_visible() and not tab.locator("#files").is_visible()
        assert any(tmp_path.iterdir())
        assert running.end(signal.SIGINT) == (0, "")
        assert not any(tmp_path.iterdir())  # nobody's pictures are left behind


def test_a_port_that_is_taken_is_named(address, monkeypatch):
    port = int(address.rpartition(":")[2])
    monkeypatch.setattr(app, "stop_asked", threading.Event)  # this process keeps its Ctrl-C
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}: .* another --port"):
        app.serve("localhost:1", ["cleanplate"], port=port)


def test_mistakes_in_flags_are_named(tmp_path):
    for text in ("runs/mine", "=runs/mine", "mine="):
        with pytest.raises(UserError, match=f"--export={text}: say what to call it"):
            app._exports([text])
    with pytest.raises(UserError, match="--export=a=y: a is the name of another"):
        app._exports(["a=x", "a=y"])
    assert app._exports(["a=x", "b=c=d"]) == {"a": "x", "b": "c=d"}
    with pytest.raises(UserError, match="--examples=/nowhere: no such folder"):
        app._examples("/nowhere")


def test_names_stay_inside_their_folder_and_apart():
    given = ["a.jpg", "A.jpg", "a-2.jpg", "../../etc/passwd", r"C:\photos\a.jpg", "..", "", "noise"]
    expected = ["a.jpg", "A-2.jpg", "a-2-2.jpg", "passwd", "a-3.jpg", "picture", "picture-2", "noise"]
    assert uploads.unique_names(given) == expected


def test_what_browsers_cannot_show_is_shown_as_it_looks(tmp_path, photo):
    grey = photo[:40, :60, 0]
    uploads._show(encoded(grey.astype(np.uint16) * 257), tmp_path / "deep.jpg", 2048)
    assert np.abs(decoded((tmp_path / "deep.jpg").read_bytes(), "L").astype(int) - grey).mean() < 2
    clear = np.dstack([photo[:40, :60], np.zeros_like(grey)])
    uploads._show(encoded(clear), tmp_path / "clear.jpg", 30)
    shown = decoded((tmp_path / "clear.jpg").read_bytes())
    assert shown.shape == (20, 30, 3) and shown.min() > 250
