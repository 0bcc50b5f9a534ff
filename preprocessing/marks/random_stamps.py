"""Draws many random stamps of all kinds, to train a model that removes marks it has never seen.

    write("bank", count=300, seed=0)

Out: FOLDER/
    000.png, 001.png, …    RGBA: captions, dates and logos of random size, color, opacity, outline and
                           font, some on translucent panels

Their text is random letters, and their shapes imitate nobody's mark.
"""

from __future__ import annotations

import os
import string
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

from common import fonts
from common.command_line import UserError
from preprocessing.marks.draw import text_stamp

_LETTERS = string.ascii_letters + string.digits + " .,-:/@&'"
# Shapes are drawn at twice their size and then halved, which smooths their edges.
_OVERSAMPLED = 2
_CAMERA_COLORS = ("#ff9020", "#ff5020", "#ffd040", "#f03030", "#60e060", "#ffffff")


def write(folder: str, count: int, seed: int) -> None:
    """Draws a bank.

    Args:
      folder: created, and appears only once all stamps are in it.
      count: number of stamps.
      seed: the same seed draws the same stamps, given the same system fonts.

    Raises:
      UserError: the folder exists, or cannot be written.
    """
    if os.path.exists(folder):
        raise UserError(f"--out={folder}: is there already; name a new folder")
    faces = [None, *fonts.find_all(_LETTERS)]
    parent = Path(folder).absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as scratch:
            whole = Path(scratch, "bank")
            whole.mkdir()
            for number in tqdm(range(count), "stamps"):
                draw(np.random.default_rng([seed, number]), faces).save(whole / f"{number:03d}.png")
            os.rename(whole, folder)
    except OSError as error:
        raise UserError(f"--out={folder}: cannot be written ({error.strerror})") from None


def draw(rng: np.random.Generator, faces: Sequence[str | None]) -> Image.Image:
    """Draws one stamp.

    Args:
      rng: source of all randomness.
      faces: paths of fonts to choose from; None is Pillow's built-in font.

    Returns:
      RGBA, not transparent everywhere.
    """
    kind = rng.choice(["caption", "date", "logo", "logo and caption"], p=[0.45, 0.15, 0.2, 0.2])
    if kind == "caption":
        stamp = _caption(rng, faces)
    elif kind == "date":
        stamp = _date(rng, faces)
    elif kind == "logo":
        stamp = _logo(rng, round(np.exp(rng.uniform(np.log(30), np.log(240)))))
    else:
        text = _caption(rng, faces)
        stamp = _side_by_side(_logo(rng, max(24, round(text.height * rng.uniform(0.8, 2.5)))), text, rng.random() < 0.5)
    if rng.random() < 0.25:
        stamp = _with_shadow(stamp, rng)
    return _on_panel(stamp, rng) if rng.random() < 0.25 else stamp


def _color(rng: np.random.Generator) -> str:
    """Returns `#rrggbb`: most often white, else black, a gray or any color."""
    kind = rng.choice(4, p=[0.4, 0.12, 0.13, 0.35])
    if kind < 2:
        return ("#ffffff", "#000000")[kind]
    rgb = [rng.integers(60, 240)] * 3 if kind == 2 else rng.integers(0, 256, 3)
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _caption(rng: np.random.Generator, faces: Sequence[str | None]) -> Image.Image:
    lines = []
    for _ in range(rng.choice([1, 2, 3], p=[0.7, 0.22, 0.08])):
        style = rng.choice(["lower", "upper", "mixed"])
        letters = {"lower": string.ascii_lowercase, "upper": string.ascii_uppercase, "mixed": _LETTERS}[style]
        words = ["".join(rng.choice(list(letters), rng.integers(2, 10))) for _ in range(rng.integers(1, 4))]
        lines.append(" ".join(words))
    text = "\n".join(lines)
    size = round(rng.uniform(14, 72) if len(text) < 20 else rng.uniform(14, 36))
    return text_stamp(
        text if text.strip() else "A",
        size,
        opacity=rng.uniform(0.3, 1.0),
        color=_color(rng),
        outline=int(rng.choice([0, 1, max(1, size // 14)], p=[0.5, 0.25, 0.25])),
        font=faces[rng.integers(len(faces))],
        outline_color=_color(rng) if rng.random() < 0.4 else "#101010",
    )


def _date(rng: np.random.Generator, faces: Sequence[str | None]) -> Image.Image:
    limits = ((0, 100), (1, 13), (1, 32), (0, 24), (0, 60))
    year, month, day, hour, minute = (rng.integers(low, high) for low, high in limits)
    text = str(
        rng.choice(
            [
                f"'{year:02d} {month:2d} {day:2d}",
                f"{day:02d}.{month:02d}.{year:02d}",
                f"20{year:02d}/{month:02d}/{day:02d} {hour:02d}:{minute:02d}",
                f"{hour:02d}:{minute:02d}  {month:02d}-{day:02d}-20{year:02d}",
            ]
        )
    )
    size = round(rng.uniform(14, 48))
    return text_stamp(
        text,
        size,
        opacity=rng.uniform(0.8, 1.0),
        color=str(rng.choice(_CAMERA_COLORS)),
        outline=int(rng.choice([0, max(1, size // 12)])),
        font=faces[rng.integers(len(faces))],
        outline_color=str(rng.choice(["#000000", "#401000", "#303030"])),
    )


def _logo(rng: np.random.Generator, side: int) -> Image.Image:
    """Draws one to three shapes in one or two colors, each color with its own opacity."""
    large = side * _OVERSAMPLED
    ink = Image.new("RGBA", (large, large), (0, 0, 0, 0))
    paints = [(_color(rng), round(255 * rng.uniform(0.2, 1.0))) for _ in range(2)]
    for number in range(rng.integers(1, 4)):
        mask = Image.new("L", (large, large))
        _shape(rng, ImageDraw.Draw(mask), large)
        solid = Image.new("RGBA", (large, large), paints[number % 2][0])
        solid.putalpha(paints[number % 2][1])
        ink.paste(solid, (0, 0), mask)
    return ink.convert("RGBa").resize((side, side), Image.Resampling.BOX).convert("RGBA")


def _shape(rng: np.random.Generator, pen: ImageDraw.ImageDraw, side: int) -> None:
    kind = rng.choice(["ring", "disc", "frame", "polygon", "bars", "cross", "arcs"])
    thick = max(2, round(side * rng.uniform(0.02, 0.15)))
    margin = round(side * rng.uniform(0, 0.25))
    box = (margin, margin, side - 1 - margin, side - 1 - margin)
    if kind == "ring":
        pen.ellipse(box, outline=255, width=thick)
    elif kind == "disc":
        pen.ellipse(box, fill=255)
    elif kind == "frame":
        pen.rounded_rectangle(box, radius=round(side * rng.uniform(0, 0.2)), outline=255, width=thick)
    elif kind == "polygon":
        centre, radius, corners = side / 2, side / 2 - margin, rng.integers(3, 9)
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(0, 2 * np.pi)
        reach = radius * np.where(np.arange(corners) % 2, rng.uniform(0.4, 1.0), 1.0)
        points = np.stack([centre + reach * np.cos(angles), centre + reach * np.sin(angles)], 1)
        pen.polygon([tuple(point) for point in points], fill=255)
    elif kind == "bars":
        for start in range(margin, side - margin, 2 * thick):
            pen.rectangle((start, margin, start + thick, side - margin), fill=255)
    elif kind == "cross":
        pen.line((margin, margin, side - margin, side - margin), fill=255, width=thick)
        pen.line((margin, side - margin, side - margin, margin), fill=255, width=thick)
    else:
        for step in range(0, side // 2 - margin, 2 * thick):
            inner = tuple(edge + step * sign for edge, sign in zip(box, (1, 1, -1, -1)))
            start = rng.uniform(0, 360)
            pen.arc(inner, start, start + rng.uniform(60, 300), fill=255, width=thick)


def _side_by_side(first: Image.Image, second: Image.Image, stacked: bool) -> Image.Image:
    gap = max(2, second.height // 4)
    if stacked:
        size = (max(first.width, second.width), first.height + gap + second.height)
        places = [((size[0] - first.width) // 2, 0), ((size[0] - second.width) // 2, first.height + gap)]
    else:
        size = (first.width + gap + second.width, max(first.height, second.height))
        places = [(0, (size[1] - first.height) // 2), (first.width + gap, (size[1] - second.height) // 2)]
    both = Image.new("RGBA", size, (0, 0, 0, 0))
    for image, place in zip((first, second), places):
        both.paste(image, place)
    return both


def _on_panel(stamp: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Puts a translucent bar, plate or slanted panel of about the stamp's size behind it."""
    size = np.round(np.array(stamp.size) * rng.uniform((0.7, 0.9), (1.3, 2.0))).astype(int)
    width, height = np.maximum(size, 8)
    slant = round(height * rng.uniform(-1.0, 1.0)) if rng.random() < 0.5 else 0
    mask = Image.new("L", ((width + abs(slant)) * _OVERSAMPLED, height * _OVERSAMPLED))
    pen, reach, bottom = ImageDraw.Draw(mask), mask.width - 1, mask.height - 1
    if slant:
        left, right = (abs(slant) * _OVERSAMPLED, 0) if slant > 0 else (0, abs(slant) * _OVERSAMPLED)
        pen.polygon([(left, 0), (reach - right, 0), (reach - left, bottom), (right, bottom)], fill=255)
    elif rng.random() < 0.2:
        pen.ellipse((0, 0, reach, bottom), fill=255)
    else:
        pen.rounded_rectangle((0, 0, reach, bottom), round(height * rng.choice([0.0, rng.uniform(0.0, 0.8)])), fill=255)
    opacity = rng.uniform(0.15, 0.8)
    panel = Image.new("RGBA", (mask.width // _OVERSAMPLED, mask.height // _OVERSAMPLED), _color(rng))
    panel.putalpha(mask.resize(panel.size, Image.Resampling.BOX).point(lambda value: round(value * opacity)))
    whole = Image.new("RGBA", (max(panel.width, stamp.width), max(panel.height, stamp.height)), (0, 0, 0, 0))
    whole.paste(panel, ((whole.width - panel.width) // 2, (whole.height - panel.height) // 2))
    above = Image.new("RGBA", whole.size, (0, 0, 0, 0))
    above.paste(stamp, ((whole.width - stamp.width) // 2, (whole.height - stamp.height) // 2))
    return Image.alpha_composite(whole, above)


def _with_shadow(stamp: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Puts a soft dark copy behind the stamp, shifted by a few pixels."""
    blur, (right, down) = rng.uniform(0.5, 3.0), rng.integers(1, 5, 2)
    border = 3 * round(blur + 1) + 4
    size = (stamp.width + 2 * border, stamp.height + 2 * border)
    alpha = Image.new("L", size)
    alpha.paste(stamp.getchannel("A"), (border + int(right), border + int(down)))
    strength = rng.uniform(0.3, 0.9)
    alpha = alpha.filter(ImageFilter.GaussianBlur(blur)).point(lambda value: round(value * strength))
    shadow = Image.new("RGBA", size, (0, 0, 0, 0))
    shadow.putalpha(alpha)
    above = Image.new("RGBA", size, (0, 0, 0, 0))
    above.paste(stamp, (border, border))
    return Image.alpha_composite(shadow, above)
