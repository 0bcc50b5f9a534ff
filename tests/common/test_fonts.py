"""A font is chosen by what it can write, and what is lacking is said with the remedy."""

import pytest

from common import fonts
from common.command_line import UserError


def test_latin_needs_no_font_of_the_system():
    assert fonts.find_font("Sample 2024\n(c)", folders=[]) is None


def test_a_glyph_that_no_font_has_is_named_with_a_debian_package(tmp_path):
    with pytest.raises(UserError, match=r"U\+6837.*apt install fonts-noto-cjk"):
        fonts.find_font("样片", folders=[str(tmp_path)])
    with pytest.raises(UserError, match=r"U\+0915.*apt install fonts-noto-core"):
        fonts.find_font("क", folders=[str(tmp_path)])


def test_a_font_that_is_none_is_named(tmp_path):
    (tmp_path / "face.ttf").write_text("no font")
    with pytest.raises(UserError, match="face.ttf: is no TrueType"):
        fonts.find_font("A", str(tmp_path / "face.ttf"))
    with pytest.raises(UserError, match="absent.ttf: no such file"):
        fonts.find_font("A", str(tmp_path / "absent.ttf"))


def test_damaged_fonts_on_the_system_are_passed_over(tmp_path):
    (tmp_path / "face.ttf").write_text("no font")
    with pytest.raises(UserError, match="no font found"):
        fonts.find_font("样", folders=[str(tmp_path)])


def test_missing_characters_are_found_by_their_box():
    face = fonts.load(None, 48)
    assert fonts.missing("Aé~ \n", face) == [] or fonts.missing("A ~\n", face) == []
    assert fonts.missing("A样B", face) == ["样"]
