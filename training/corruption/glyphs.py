"""Glyph atlases: every letter of an alphabet in several sizes and weights, drawn once with Pillow.

A face is one font at one size and weight. Its letters stand side by side in a strip, on a common baseline. All strips
are stored in one array, column after column, so that the pixels of a letter's column are contiguous:

    ink[start[face] + (columns[face, glyph] + x) * pitch[face] + y]

is the ink, 0..255, in column x and row y of a glyph. A glyph has as many columns as it advances, or more if its ink
reaches further. The last of a strip's `pitch` rows is blank, for lookups below a line of text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from absl import logging
from PIL import Image, ImageDraw, ImageFont

from common import fonts

SPACE = 0  # the glyph between words

# The scripts of each alphabet, with their characters. The Han characters are frequent ones that Chinese (simplified and
# traditional), Japanese and Korean fonts share. Han, kana and hangul are each so uniform that a sample stands for all.
SCRIPTS = {
    "latin": {"lower": "abcdefghijklmnopqrstuvwxyz", "upper": "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
    "digits": {"digits": "0123456789.:/-"},
    "cjk": {
        "han": "的一是不了人我在有他中大以上和地到年生自下天子行作里方多成能力小心分面事十三日同"
        "本正高二四五六七八九百千万水火山木金土石田雨花海空月光明早西北南左右入口手目耳足王玉文字名男女米白色安全公平古今元新世界主用可去出立位代化",
        "hiragana": "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん",
        "katakana": "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン",
        "hangul": "이다는에의가을하고로를지기사한은자리도인그대나"
        "어서시라스일아들만해정수주전부보상장것있없말게면여우소원제",
    },
}


@dataclasses.dataclass(frozen=True)
class Atlas:
    """The letters of an alphabet; see the module's docstring for the layout.

    Attributes:
      ink: uint8 `[P]`, 0..255, antialiased.
      columns: int32 `[F, G + 1]`, where each glyph begins in its strip, and lastly where the strip ends.
      start: int32 `[F]`, where each strip begins in `ink`.
      pitch: int32 `[F]`, rows of each strip, including the blank one.
      sizes: int32 `[F]`, pixels per em.
      scripts: first glyph and number of glyphs of each script.
    """

    ink: np.ndarray
    columns: np.ndarray
    start: np.ndarray
    pitch: np.ndarray
    sizes: np.ndarray
    scripts: dict[str, tuple[int, int]]


def size_ladder(low: float, high: float, most: int = 6) -> list[int]:
    """Returns at most `most` whole sizes from `low` to `high`, at a constant ratio."""
    return sorted({round(size) for size in np.geomspace(low, high, most)})


def stroke(size: int, bold: bool) -> int:
    """Returns the pixels that bold adds on each side of a stroke; 0 for small faces, where counters would close."""
    return size // 20 if bold else 0


def build(alphabet: Sequence[str], sizes: Iterable[int], font: str) -> Atlas:
    """Draws an atlas: every size in regular weight, and in bold if that differs.

    Args:
      alphabet: keys of `SCRIPTS`.
      sizes: pixels per em.
      font: path of a TrueType or OpenType file; empty for Pillow's font (Latin and digits) and the system's (CJK).

    Returns:
      The atlas.

    Raises:
      UserError: the font cannot be used, or none was found.
    """
    letters, scripts = [(" ", None)], {}
    for script, characters, path in _with_fonts(alphabet, font):
        scripts[script] = (len(letters), len(characters))
        letters += [(character, path) for character in characters]
    faces = [(size, stroke(size, bold)) for size in sizes for bold in (False, True)]
    strips = [_strip(letters, size, width) for size, width in dict.fromkeys(faces)]
    lengths = [strip.size for strip, _ in strips]
    return Atlas(
        ink=np.concatenate([strip.T.ravel() for strip, _ in strips]),
        columns=np.array([columns for _, columns in strips], np.int32),
        start=np.cumsum([0, *lengths[:-1]]).astype(np.int32),
        pitch=np.array([len(strip) for strip, _ in strips], np.int32),
        sizes=np.array([size for size, _ in dict.fromkeys(faces)], np.int32),
        scripts=scripts,
    )


def _with_fonts(alphabet: Sequence[str], font: str) -> list[tuple[str, str, str | None]]:
    """Returns every script of the alphabet with its characters and the font to draw them with."""
    wanted = [(script, text) for name in alphabet for script, text in SCRIPTS[name].items()]
    if not font:
        return [(script, text, fonts.find_font(text)) for script, text in wanted]
    # A Japanese font lacks hangul, and a Korean one may lack kana: use the scripts that the user's font has.
    probe = fonts.load(font, 48)
    lacking = [script for script, text in wanted if fonts.missing(text, probe)]
    for name in alphabet:
        if set(SCRIPTS[name]) <= set(lacking):
            fonts.find_font("".join(SCRIPTS[name].values()), font)  # raises an error that says what to do
    if lacking:
        logging.warning("font %s has no %s: the other scripts are drawn", font, ", ".join(lacking))
    return [(script, text, font) for script, text in wanted if script not in lacking]


def _strip(letters: Sequence[tuple[str, str | None]], size: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one face; returns uint8 `[rows, columns]` and where each letter begins, int32 `[G + 1]`."""
    faces = {path: fonts.load(path, size) for _, path in letters[1:]}
    faces[None] = faces.get(None) or next(iter(faces.values()))
    cells = [_cell(letter, faces[path], width) for letter, path in letters]
    columns = np.cumsum([0, *(right - left for left, _, right, _ in cells)]).astype(np.int32)
    top, bottom = min(cell[1] for cell in cells), max(cell[3] for cell in cells)
    strip = Image.new("L", (int(columns[-1]), bottom - top + 1))
    pen = ImageDraw.Draw(strip)
    for (letter, path), column, (left, _, _, _) in zip(letters, columns, cells):
        place = (int(column) - left, -top)
        pen.text(place, letter, fill=255, font=faces[path], anchor="ls", stroke_width=width)
    return np.asarray(strip), columns


def _cell(letter: str, face: ImageFont.FreeTypeFont, width: int) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom of a letter's ink and advance, from the origin on the baseline."""
    left, top, right, bottom = face.getbbox(letter, anchor="ls", stroke_width=width)
    return min(0, int(left)), int(top), max(int(right), round(face.getlength(letter)) + width), int(bottom)
