"""The report is one page that needs no network, and its dividers follow a mouse, a finger and the keyboard."""

import base64
import io
import re
import time
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from training.evaluation import figures, page
from training.evaluation.gallery import Gallery
from training.evaluation.histogram import histogram

EVIL = "<script>alert(1)</script>\"'&$title.jpg"


def _summary(parts, failed=()):
    """As `training.evaluate` makes it."""
    return {
        "model": {"path": "runs/<b>/export/3", "step": 500, "validation_psnr": 30.25, "info": {}},
        "arguments": {"images": "a&b", "side": 256, "seed": 0},
        "pictures": {"found": 3, "evaluated": 3, "failed": list(failed)},
        "specs": [{"spec": spec, "figures": figures.summarize(rows)} for spec, rows in parts.items()],
    }


def _row(number, name, clean, corrupted, restored, covered):
    judged = figures.judge(clean, corrupted, restored, covered)
    return {"number": number, "picture": name, "width": clean.shape[1], "height": clean.shape[0], **judged}


@pytest.fixture(scope="module")
def html(astronaut):
    """Three pictures with half of them covered by grey and restored to the original, and the like that get worse."""
    parts, galleries = {}, []
    for spec in ("watermark:canvas=<i>.png", "text"):
        rows, gallery = [], Gallery(2)
        for number, name in enumerate((EVIL, "wide.jpg", "tall.jpg")):
            height, width = ((128, 128), (40, 200), (200, 40))[number]
            clean = astronaut[:height, :width]
            corrupted = clean.copy()
            corrupted[:, width // 2 :] = 128
            covered = (corrupted == 128).all(axis=2)
            restored = corrupted // 2 if spec == "text" else clean // 2 + corrupted // 2
            rows.append(_row(number, name, clean, corrupted, restored, covered))
            gallery.offer(rows[-1], corrupted, restored)
        parts[spec] = rows
        galleries.append(gallery)
    failed = [{"picture": EVIL, "reason": "<u>cannot</u>"}]
    return page.render(_summary(parts, failed), list(parts.values()), galleries)


class _Elements(HTMLParser):
    """Collects all elements with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_refers_to_nothing_outside(html):
    assert not re.findall(r"https?:|//[a-z]+\.", re.sub(r"base64,[\w+/=]+", "", html))
    assert "@import" not in html and not re.search(r"url\(", html)
    for tag, attributes in _Elements(html).found:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in {"src", "href", "srcset", "data", "action", "poster"} & attributes.keys():
            assert attributes[name].startswith("data:image/jpeg;base64,"), (tag, name)
    assert "default-src 'none'" in html


def test_names_are_text_and_not_markup(html):
    elements = _Elements(html).found
    assert [tag for tag, _ in elements].count("script") == 1
    assert not {"u", "i"} & {tag for tag, _ in elements}
    assert "runs/<b>" not in html and "runs/&lt;b&gt;" in html
    assert any(attributes.get("alt") == f"{EVIL}, restored" for _, attributes in elements)
    assert "$" not in re.sub(re.escape("$title.jpg"), "", html)


def test_every_picture_is_inside_and_described(html):
    images = [attributes for tag, attributes in _Elements(html).found if tag == "img"]
    assert len(images) == 2 * 2 * 3
    for attributes in images:
        data = base64.b64decode(attributes["src"].split(",")[1])
        size = Image.open(io.BytesIO(data)).size
        assert size == (int(attributes["width"]), int(attributes["height"]))
        assert attributes["alt"].endswith((", overlaid", ", restored"))


def test_a_large_picture_is_shown_smaller_and_the_page_says_so():
    rng, gallery = np.random.default_rng(0), Gallery(1)
    clean = rng.integers(0, 256, (400, 1600, 3)).astype(np.uint8)
    rows = [_row(0, "large.jpg", clean, clean, clean, np.zeros((400, 1600), bool))]
    gallery.offer(rows[0], clean, clean)
    text = page.render(_summary({"clean": rows}), [rows], [gallery])
    assert "1600 x 400, shown at 768 x 192" in text and 'width="768" height="192"' in text


def test_the_histogram_is_svg_whose_bars_add_up():
    svg = ElementTree.fromstring(histogram([-3.0, -0.5, 1.0, 1.2, 8.0], "gain"))
    titles = {
        kind: [rect.find("title").text for rect in svg.iter("rect") if rect.get("class") == kind]
        for kind in ("loss", "gain")
    }
    assert sum(int(title.split(": ")[1]) for title in titles["loss"]) == 2
    assert sum(int(title.split(": ")[1]) for title in titles["gain"]) == 3
    heights = {rect.find("title").text: float(rect.get("height")) for rect in svg.iter("rect")}
    assert heights["1 to 1.5 dB: 2"] == pytest.approx(2 * heights["8 to 8.5 dB: 1"])


@pytest.fixture
def open_page(browser, html, tmp_path):
    """Opens the report in a window of its own; what it complains of, or asks of a network, fails the test."""
    (tmp_path / "index.html").write_text(html, encoding="utf-8")
    contexts, complaints, requests = [], [], []

    def open_(**options):
        contexts.append(browser.new_context(**options))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: complaints.append(dialog.message))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto((tmp_path / "index.html").as_uri())
        return tab

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []


def _divider(compare):
    """Where the divider is drawn and where the overlaid picture ends, as shares of the width."""
    return compare.evaluate(
        """(compare) => {
          const box = compare.getBoundingClientRect();
          const line = compare.querySelector(".divider").getBoundingClientRect();
          const clip = getComputedStyle(compare.querySelector(".before")).clipPath;
          const inset = document.createElement("div"), right = /inset\\(\\S+ (calc\\(.*\\)|\\S+) \\S+ \\S+\\)/;
          compare.append(inset);
          inset.style.cssText = "position: absolute; width: " + clip.match(right)[1];
          const cut = inset.getBoundingClientRect().width;
          inset.remove();
          return [(line.left + line.width / 2 - box.left) / box.width, 1 - cut / box.width];
        }"""
    )


def _at(compare, share):
    deadline = time.monotonic() + 3  # a browser hands moves on with its next frame, which a busy machine delays
    while _divider(compare)[0] != pytest.approx(share, abs=0.01) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _divider(compare) == [pytest.approx(share, abs=0.01)] * 2
    assert float(compare.locator("input").input_value()) == pytest.approx(100 * share, abs=1)
    assert compare.locator("input").get_attribute("aria-valuetext") == f"{round(100 * share)} % overlaid"


def _pixel(tab, x, y):
    return Image.open(io.BytesIO(tab.screenshot())).convert("RGB").getpixel((round(x), round(y)))


def test_a_mouse_drags_the_divider_and_leaves_it_where_it_is_released(open_page):
    tab = open_page(viewport={"width": 1200, "height": 900})
    compare = tab.locator(".compare").first
    compare.scroll_into_view_if_needed()
    box = compare.bounding_box()
    x, y = (lambda share: box["x"] + share * box["width"]), box["y"] + box["height"] * 0.25
    _at(compare, 0.5)
    tab.mouse.move(x(0.5), y)
    tab.mouse.down()
    tab.mouse.move(x(0.8), y)
    _at(compare, 0.8)
    tab.mouse.move(x(1.5), y + 300)  # outside the picture
    _at(compare, 1.0)
    overlaid = _pixel(tab, x(0.7), y)
    tab.mouse.move(x(0.2), y)
    tab.mouse.up()
    assert overlaid == (128, 128, 128) != _pixel(tab, x(0.7), y)
    tab.mouse.move(x(0.6), y)
    _at(compare, 0.2)
    tab.mouse.click(x(0.4), y)
    _at(compare, 0.4)
    _at(tab.locator(".compare").nth(1), 0.5)


def test_a_tap_moves_the_divider_and_a_finger_that_scrolls_does_not(open_page):
    tab = open_page(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    compare = tab.locator(".compare").first
    compare.scroll_into_view_if_needed()
    box = compare.bounding_box()
    tab.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    _at(compare, 0.25)

    fingers, start = tab.context.new_cdp_session(tab), (box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"])

    def touch(kind, *points):
        fingers.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": px, "y": py} for px, py in points]}
        )

    def swipe(dx, dy):
        touch("touchStart", start)
        for part in range(1, 11):
            touch("touchMove", (start[0] + dx * part / 10, start[1] + dy * part / 10))
        touch("touchEnd")

    swipe(0.5 * box["width"], 0)
    _at(compare, 0.8)
    before = tab.evaluate("scrollY")
    swipe(0, -120)
    tab.wait_for_function(f"scrollY > {before} + 50")
    _at(compare, 0.8)


def test_the_keyboard_moves_the_divider_and_shows_where_it_is(open_page):
    tab = open_page(viewport={"width": 1200, "height": 900})
    compare = tab.locator(".compare").first
    slider = compare.get_by_role("slider", name=re.compile("overlaid on its left, restored on its right"))
    plain = compare.screenshot()
    for _ in range(20):
        tab.keyboard.press("Tab")
        if slider.evaluate("(slider) => slider === document.activeElement"):
            break
    else:
        pytest.fail("Tab does not reach the slider")
    assert compare.screenshot() != plain  # the focus is seen
    assert compare.locator(".ring").evaluate("(ring) => getComputedStyle(ring).borderTopWidth") == "4px"
    for key, share in [("Home", 0.0), ("End", 1.0)]:
        tab.keyboard.press(key)
        _at(compare, share)
    for _ in range(3):
        tab.keyboard.press("ArrowLeft")
    there = _divider(compare)[0]
    assert 0.5 < there < 0.99
    tab.keyboard.press("ArrowRight")
    assert _divider(compare)[0] > there


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_a_phone_and_both_colour_schemes(open_page, scheme, width):
    tab = open_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    for compare in tab.locator(".compare").all():
        box = compare.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] >= 40
    background, ink = (
        sum(map(int, re.findall(r"\d+", tab.evaluate(f"getComputedStyle(document.body).{name}"))[:3]))
        for name in ("backgroundColor", "color")
    )
    assert (background > 600 and ink < 150) if scheme == "light" else (background < 150 and ink > 600)
    for svg in tab.locator("svg").all():
        assert svg.get_attribute("aria-label").startswith("Histogram: ")
