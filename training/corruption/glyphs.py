"""Glyph atlases: every letter of an alphabet in several sizes and weights, drawn once with Pillow.

A face is one font at one size and weight. Its letters stand side by side in a strip, baseline on baseline; all strips
lie in one array, column after column, so that the pixels of a letter's column are neighbours:

    ink[start[face] + (columns[face, glyph] + x) * pitch[face] + y]

is the ink, 0..255, in column x and row y of a glyph. Columns are as many as the glyph advances, or more where its ink
reaches further; the last of a strip's `pitch` rows is blank, a place to look up where a line of text has ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from absl import logging
from PIL import Image, ImageDraw, ImageFont

from common import fonts

SPACE = 0  # the glyph that is a gap between words

# Each script of an alphabet, with its characters. The Han are frequent ones that Chinese (simplified and traditional),
# Japanese and Korean fonts have in common; all Han, kana and hangul are so alike in build that some stand for the rest.
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
    """The letters of an alphabet; see the module's docstring for how they are laid out.

    Attributes:
      ink: uint8 `[P]`, 0..255, antialiased.
      columns: int32 `[F, G + 1]`, where each glyph begins in its strip, and behind the last where the strip ends.
      start: int32 `[F]`, where each strip begins.
      pitch: int32 `[F]`, rows of each strip, the blank one included.
      sizes: int32 `[F]`, pixels to the em.
      scripts: for each script its first glyph and how many it has.
    """

    ink: np.ndarray
    columns: np.ndarray
    start: np.ndarray
    pitch: np.ndarray
    sizes: np.ndarray
    scripts: dict[str, tuple[int, int]]


def size_ladder(low: float, high: float, most: int = 6) -> list[int]:
    """Whole sizes from `low` to `high`, evenly spaced in ratio, at most `most` of them."""
    return sorted({round(size) for size in np.geomspace(low, high, most)})


def stroke(size: int, bold: bool) -> int:
    """Pixels by which letters are thickened on each side; a small face has no bold: its counters would close."""
    return size // 20 if bold else 0


def build(alphabet: Sequence[str], sizes: Iterable[int], font: str) -> Atlas:
    """Draws an atlas: every size in regular weight, and in bold where that differs.

    Args:
      alphabet: names out of `SCRIPTS`.
      sizes: pixels to the em.
      font: path of a TrueType or OpenType file; empty: Pillow's own for Latin and digits, the system's for CJK.

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
    """Every script of the alphabet with its characters and the font that has them."""
    wanted = [(script, text) for name in alphabet for script, text in SCRIPTS[name].items()]
    if not font:
        return [(script, text, fonts.find_font(text)) for script, text in wanted]
    # A Japanese font lacks hangul, a Korean one may lack kana: what the user's font has of an alphabet is used.
    probe = fonts.load(font, 48)
    lacking = [script for script, text in wanted if fonts.missing(text, probe)]
    for name in alphabet:
        if set(SCRIPTS[name]) <= set(lacking):
            fonts.find_font("".join(SCRIPTS[name].values()), font)  # says what is lacking, and what to do
    if lacking:
        logging.warning("font %s has no %s: the other scripts are drawn", font, ", ".join(lacking))
    return [(script, text, font) for script, text in wanted if script not in lacking]


def _strip(letters: Sequence[tuple[str, str | None]], size: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one face: uint8 `[rows, columns]` and where each letter begins, int32 `[G + 1]`."""
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
    """Left, top, right and bottom of a letter's ink and advance, about the origin on the baseline."""
    left, top, right, bottom = face.getbbox(letter, anchor="ls", stroke_width=width)
    return min(0, int(left)), int(top), max(int(right), round(face.getlength(letter)) + width), int(bottom)
