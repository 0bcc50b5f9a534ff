"""Finds a font that can render a text: Pillow's built-in font if it suffices, else a system font.

    >>> find_font("Sample 2024", None) is None
    True
    >>> find_font("样片", None)
    '/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc'
    >>> face = load(find_font("样片", None), 36)

A font that lacks a glyph silently draws an empty box, and a network would learn to remove empty boxes. So every
character is looked up before anything is drawn.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Iterable, Sequence

from PIL import ImageFont

from common import child_process
from common.command_line import UserError

# Font folders of Debian packages, local installs and the user, for systems without fontconfig.
_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# Prefixes of the Unicode names of CJK characters.
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH", "KANGXI")
# Pixels per em: large enough that no glyph's bitmap equals the empty box's by accident.
_PROBE_SIZE = 48
_NO_CHARACTER = "\U0010ffff"


def find_font(characters: str, font: str | None = None, folders: Sequence[str] | None = None) -> str | None:
    """Finds a font that has a glyph for each of these characters.

    Args:
      characters: a text or an alphabet, in any order. Line breaks need no glyph.
      font: path of a font file, or name of an installed one (`DejaVuSans.ttf`); only this font is checked. None: try
        Pillow's built-in font (ASCII and little more), then the system's fonts, plainest first.
      folders: search only these folders for system fonts. None: ask fontconfig, or search the usual folders if it is
        not installed.

    Returns:
      Path of a TrueType or OpenType file; None if the built-in font suffices.

    Raises:
      UserError: `font` does not exist or lacks a glyph, or no system font has all the glyphs.
    """
    characters = "".join(sorted(set(characters)))
    if font is not None:
        face = load(font, _PROBE_SIZE)
        lacking = missing(characters, face)
        if lacking:
            raise UserError(f"font {font}: has no glyph for {_quoted(lacking)}; name one that has, or leave it to us")
        return str(face.path)
    lacking = missing(characters, load(None, _PROBE_SIZE))
    if not lacking:
        return None
    for path in sorted(_installed(characters, folders), key=_plainness):
        try:
            if not missing(characters, _probe(path)):
                return path
        except OSError:  # damaged, or a bitmap font with fixed sizes
            continue
    raise UserError(f"no font found that has {_quoted(lacking)} and the rest of the text; {_remedy(lacking)}")


def find_all(characters: str) -> list[str]:
    """Returns the paths of all system fonts that have a glyph for each of these characters, sorted; may be empty."""
    found = []
    for path in sorted(_installed(characters, None)):
        try:
            if not missing(characters, _probe(path)):
                found.append(path)
        except OSError:
            continue
    return found


def load(path: str | None, size: int) -> ImageFont.FreeTypeFont:
    """Opens a font.

    Args:
      path: as returned by `find_font`; None is Pillow's built-in font.
      size: pixels per em.

    Returns:
      The font at this size.

    Raises:
      UserError: the file does not exist or is not a font.
    """
    if path is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        what = f"is no TrueType or OpenType font ({error})" if os.path.exists(path) else "no such file"
        raise UserError(f"font {path}: {what}; `fc-list` shows the fonts that are installed") from None


def missing(characters: Iterable[str], face: ImageFont.FreeTypeFont) -> list[str]:
    """Lists the characters that a font would draw as an empty box, or not at all.

    Args:
      characters: the characters to look up.
      face: the font, at 24 pixels or larger.

    Returns:
      The characters without a glyph, in order.
    """
    box = _picture(_NO_CHARACTER, face)
    lacking = []
    for character in characters:
        category = unicodedata.category(character)
        if category in ("Cc", "Cf"):  # line breaks and invisible marks
            continue
        picture = _picture(character, face)
        blank = not any(picture[1])
        # A space should be blank. Any other blank character has no glyph, whatever the font's empty box looks like.
        if (picture == box and not blank) or (blank and category != "Zs"):
            lacking.append(character)
    return lacking


def _picture(character: str, face: ImageFont.FreeTypeFont) -> tuple[float, bytes]:
    return face.getlength(character), bytes(face.getmask(character, mode="L"))


def _probe(path: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, _PROBE_SIZE)


def _installed(characters: str, folders: Sequence[str] | None) -> list[str]:
    program = shutil.which("fc-list")
    if folders is None and program:
        codes = " ".join(f"{ord(character):x}" for character in characters if character.isprintable())
        command = [program, "--format", "%{file}\n", f":charset={codes}"]
        listing = child_process.run(command, capture_output=True, text=True)
        found = listing.stdout.splitlines()
    else:
        found = [
            os.path.join(parent, name)
            for folder in (_FOLDERS if folders is None else folders)
            for parent, _, names in os.walk(os.path.expanduser(folder))
            for name in names
        ]
    return [path for path in dict.fromkeys(found) if path.lower().endswith(_SUFFIXES)]


def _plainness(path: str) -> tuple[int, bool, str]:
    name = os.path.basename(path).lower()
    styles = ("bold", "italic", "oblique", "thin", "light", "black", "medium", "condensed", "mono", "serif", "math")
    # "Sans Serif" is plain; "Serif" alone is not.
    return sum(style in name.replace("sansserif", "sans") for style in styles), "sans" not in name, path


def _quoted(characters: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in characters[:most])
    return shown + (f" and {len(characters) - most} more" if len(characters) > most else "")


def _remedy(characters: Sequence[str]) -> str:
    cjk = any(unicodedata.name(character, "").startswith(_CJK) for character in characters)
    packages = "fonts-noto-cjk` or `apt install fonts-wqy-zenhei" if cjk else "fonts-noto-core"
    return f"`apt install {packages}`, or name a font file that has them"
