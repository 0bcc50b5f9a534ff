"""An atlas holds what Pillow draws, for letters that its fonts have."""

import logging

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from common import fonts
from common.command_line import UserError
from training.corruption import glyphs


def _cell(atlas, face, glyph):
    """A glyph's pixels, without the blank row below."""
    left, right = atlas.columns[face, glyph : glyph + 2]
    pitch = atlas.pitch[face]
    first = atlas.start[face] + left * pitch
    return atlas.ink[first : first + (right - left) * pitch].reshape(right - left, pitch).T[:-1]


def _drawn_alone(letter, font, stroke):
    image = Image.new("L", (300, 300))
    ImageDraw.Draw(image).text((100, 150), letter, fill=255, font=font, anchor="ls", stroke_width=stroke)
    return np.asarray(image)


def _trimmed(picture):
    rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@pytest.fixture
def latin_font_file(tmp_path):
    """Pillow's own face as a file: it has no CJK."""
    path = tmp_path / "latin.otf"
    path.write_bytes(ImageFont.load_default(20).font_bytes)
    return str(path)


def test_every_letter_is_what_pillow_draws_on_one_baseline():
    atlas = glyphs.build(["latin", "digits"], [12, 43], "")
    letters = "".join(text for name in ("latin", "digits") for text in glyphs.SCRIPTS[name].values())
    assert atlas.columns.shape == (3, len(letters) + 2), "12 px regular, 43 px regular and bold; a space, and the end"
    assert set(atlas.ink.tolist()) == set(range(256))
    for face, (size, bold) in enumerate([(12, False), (43, False), (43, True)]):
        font = ImageFont.load_default(size)
        stroke = glyphs.stroke(size, bold)
        below_baseline = set()
        for glyph, letter in enumerate(letters, start=1):
            cell, alone = _cell(atlas, face, glyph), _drawn_alone(letter, font, stroke)
            np.testing.assert_array_equal(_trimmed(cell), _trimmed(alone), err_msg=f"{letter} at {size}")
            assert cell.shape[1] >= font.getlength(letter) - 1, "letters stand apart"
            below_baseline.add(np.flatnonzero(alone.any(1))[-1] - np.flatnonzero(cell.any(1))[-1])
        assert len(below_baseline) == 1
        assert not _cell(atlas, face, glyphs.SPACE).any() and _cell(atlas, face, glyphs.SPACE).shape[1] > 1


def test_letters_are_as_high_as_the_size_says():
    atlas = glyphs.build(["latin"], [10, 100], "")
    for face, size in [(0, 10), (1, 100)]:
        assert 0.85 * size <= atlas.pitch[face] - 1 <= 1.15 * size, "from the highest letter's top to the descenders"


@pytest.mark.parametrize("low, high, sizes", [(12, 48, [12, 16, 21, 28, 36, 48]), (20, 20, [20]), (6, 7.4, [6, 7])])
def test_sizes_rise_by_ratio(low, high, sizes):
    assert glyphs.size_ladder(low, high) == sizes


def test_scripts_say_where_their_letters_are():
    atlas = glyphs.build(["digits", "latin"], [20], "")
    assert atlas.scripts == {"digits": (1, 14), "lower": (15, 26), "upper": (41, 26)}


def test_no_script_lists_a_letter_twice():
    for name, scripts in glyphs.SCRIPTS.items():
        text = "".join(scripts.values())
        assert len(set(text)) == len(text), name


def test_cjk_is_drawn_with_a_font_of_the_system():
    try:
        fonts.find_font("".join(glyphs.SCRIPTS["cjk"].values()))
    except UserError as error:
        pytest.skip(str(error))
    atlas = glyphs.build(["cjk"], [32], "")
    pictures = {_trimmed(_cell(atlas, 0, glyph)).tobytes() for glyph in range(1, atlas.columns.shape[1] - 1)}
    # A few kana look alike in both scripts; empty boxes would all be one picture.
    assert len(pictures) > 0.95 * (atlas.columns.shape[1] - 2)


def test_without_a_cjk_font_the_debian_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: None)
    monkeypatch.setattr(fonts, "_FOLDERS", (str(tmp_path),))
    with pytest.raises(UserError, match="apt install fonts-"):
        glyphs.build(["latin", "cjk"], [20], "")


def test_a_font_without_a_whole_alphabet_is_refused(latin_font_file):
    with pytest.raises(UserError, match="has no glyph for"):
        glyphs.build(["latin", "cjk"], [20], latin_font_file)


def test_a_font_without_some_scripts_draws_the_others_and_says_so(latin_font_file, monkeypatch, caplog):
    monkeypatch.setitem(glyphs.SCRIPTS, "cjk", {"han": "abc", "hangul": "이다"})
    logging.getLogger("absl").addHandler(caplog.handler)
    try:
        atlas = glyphs.build(["cjk"], [20], latin_font_file)
    finally:
        logging.getLogger("absl").removeHandler(caplog.handler)
    assert atlas.scripts == {"han": (1, 3)}
    assert "has no hangul" in caplog.text


def test_a_font_file_that_is_absent_or_none_is_named(tmp_path):
    (tmp_path / "text.ttf").write_text("not a font")
    for name, reason in [("absent.ttf", "no such file"), ("text.ttf", "no TrueType or OpenType font")]:
        with pytest.raises(UserError, match=reason) as caught:
            glyphs.build(["latin"], [20], str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)
