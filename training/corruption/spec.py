"""Corruption specs: a one-line language for what is done to an image.

    watermark:canvas=mark.png,opacity=0.3..0.9      a corruption and its parameters
    watermark:canvas=mark.png+jpeg:quality=60..95   one after the other
    text|watermark:canvas=a.png;logos/*.png@0.3     one of them per image, drawn by weight; + binds tighter than |

A range is written `low..high`, and a value is drawn from it once per image; a single number is a range of no width. The
number after `@` is the weight of an alternative; those without one share the remainder of 1. In file names the
characters `, ; | + @ %` may be written `%2C %3B %7C %2B %40 %25`.

The fields of a corruption's dataclass declare what it accepts; the parser, the writer and the table in docs/training.md
are made from those declarations.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, Callable, Union
from urllib.parse import unquote

from common.command_line import UserError

_ESCAPED = str.maketrans({character: f"%{ord(character):02X}" for character in "%,;|+@"})


@dataclasses.dataclass(frozen=True)
class Range:
    """A closed interval to draw a value from, uniformly."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str, within: tuple[float, float]) -> Range:
        """Reads a number, or a range like 0.2..0.8.

        Raises:
          ValueError: it is neither, or exceeds the bounds.
        """
        first, dots, last = text.partition("..")
        try:
            value = cls(float(first), float(last if dots else first))
        except ValueError:
            raise ValueError(f"{text!r} is not a number or a range like 0.2..0.8") from None
        # Written so that NaN fails too.
        if not within[0] <= value.low <= value.high <= within[1]:
            raise ValueError(f"{text} must rise within {within[0]:g}..{within[1]:g}")
        return value

    def __str__(self) -> str:
        return _number(self.low) if self.low == self.high else f"{_number(self.low)}..{_number(self.high)}"


def _number(value: float) -> str:
    # repr reads back as the same number; a fixed number of digits would not.
    return repr(value)[:-2] if repr(value).endswith(".0") else repr(value)


def _field(read: Callable[[str], Any], write: Callable[[Any], str], accepts: str, meaning: str, **default: Any) -> Any:
    metadata = {"read": read, "write": write, "accepts": accepts, "meaning": meaning}
    return dataclasses.field(metadata=metadata, **default)


def _range(low: float, high: float, within: tuple[float, float], meaning: str) -> Any:
    """Declares a range; `low` and `high` are its default."""

    def read(text: str) -> Range:
        return Range.parse(text, within)

    return _field(read, str, f"{within[0]:g}..{within[1]:g}", meaning, default=Range(low, high))


def _choice(options: str, meaning: str) -> Any:
    """Declares one of several words, written `first|second`; the first is the default."""
    words = options.split("|")

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}")
        return text

    return _field(read, str, ", ".join(words), meaning, default=words[0])


def _words(options: str, meaning: str) -> Any:
    """Declares any selection of words, written `first+second`; the first is the default."""
    known = options.split("+")

    def read(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split("+"))
        unknown = [word for word in chosen if word not in known]
        if unknown or len(set(chosen)) < len(chosen):
            raise ValueError(f"{text!r} is not a selection of {', '.join(known)}, joined by +")
        return chosen

    return _field(read, "+".join, " + ".join(known), meaning, default=(known[0],))


def _paths(meaning: str) -> Any:
    """Declares one or several paths or patterns."""

    def read(text: str) -> tuple[str, ...]:
        paths = tuple(unquote(part, errors="surrogateescape") for part in text.split(";"))
        if not all(paths):
            raise ValueError("a path is empty")
        return paths

    def write(paths: tuple[str, ...]) -> str:
        return ";".join(path.translate(_ESCAPED) for path in paths)

    return _field(read, write, "paths and patterns, joined by ;", meaning)


def _text(accepts: str, pattern: str, meaning: str, default: str = "") -> Any:
    """Declares a word that matches a pattern; empty means none."""

    def read(text: str) -> str:
        value = unquote(text, errors="surrogateescape")
        if not re.fullmatch(pattern, value, re.DOTALL):
            raise ValueError(f"{value!r} is not {accepts}")
        return value

    return _field(read, lambda value: value.translate(_ESCAPED), accepts, meaning, default=default)


@dataclasses.dataclass(frozen=True)
class Clean:
    """The image unchanged."""


@dataclasses.dataclass(frozen=True)
class Watermark:
    """An RGBA canvas, drawn from several for each image."""

    canvas: tuple[str, ...] = _paths("RGBA pictures")
    opacity: Range = _range(0.8, 1.0, (0.0, 1.0), "factor on the canvas's alpha")
    scale: Range = _range(1.0, 1.0, (0.05, 8.0), "size of the mark by that of the canvas")
    rotate: Range = _range(0.0, 0.0, (-180.0, 180.0), "degrees, counter-clockwise")
    tint: Range = _range(0.0, 0.0, (0.0, 1.0), "how far the mark's colour moves to a random one")
    blend: str = _choice("alpha|screen|multiply", "how the mark meets the picture")
    blur: Range = _range(0.0, 0.0, (0.0, 8.0), "standard deviation of a Gaussian blur of the mark, pixels")
    warp: Range = _range(0.0, 0.0, (0.0, 16.0), "largest shift by a smooth random displacement, pixels")
    layout: str = _choice(
        "as-is|single|tile",
        "a window of a canvas larger than the picture, or the whole of a smaller one; once, anywhere, also partly "
        "outside; repeated with random gap and stagger",
    )


@dataclasses.dataclass(frozen=True)
class Text:
    """Lines of random characters."""

    occupancy: Range = _range(0.0, 50.0, (0.0, 60.0), "percent of the pixels that ink covers")
    size: Range = _range(12.0, 48.0, (6.0, 128.0), "height of the letters, pixels")
    color: str = _text(
        "any, or six hexadecimal digits RRGGBB", "any|[0-9a-fA-F]{6}", "of the ink; any: random a line", default="any"
    )
    opacity: Range = _range(0.6, 1.0, (0.0, 1.0), "of the ink")
    alphabet: tuple[str, ...] = _words("latin+digits+cjk", "which characters")
    font: str = _text("the path of a TrueType or OpenType file", ".*", "none: Pillow's own, or the system's for CJK")


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Additive white Gaussian noise."""

    stddev: Range = _range(0.0, 50.0, (0.0, 255.0), "standard deviation, 8-bit levels")


@dataclasses.dataclass(frozen=True)
class Poisson:
    """Photon noise."""

    peak: Range = _range(10.0, 100.0, (1.0, 10_000.0), "photons that a white pixel counts")


@dataclasses.dataclass(frozen=True)
class Impulse:
    """Pixels replaced by random colors."""

    occupancy: Range = _range(0.0, 95.0, (0.0, 100.0), "percent of the pixels")


@dataclasses.dataclass(frozen=True)
class Jpeg:
    """The loss from saving the image as a JPEG."""

    quality: Range = _range(60.0, 95.0, (1.0, 100.0), "libjpeg's scale; whole numbers are drawn")
    chroma: str = _choice("any|444|420", "resolution of the colour: full, half, or either at random")


@dataclasses.dataclass(frozen=True)
class Chain:
    """Corruptions one after the other: `a+b`."""

    parts: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Choice:
    """One corruption per image, drawn by weight: `a|b@0.3`."""

    options: tuple[Any, ...]
    weights: tuple[float, ...]


Spec = Union[Clean, Watermark, Text, Gaussian, Poisson, Impulse, Jpeg, Chain, Choice]

KINDS: dict[str, type] = {
    "clean": Clean,
    "watermark": Watermark,
    "text": Text,
    "gaussian": Gaussian,
    "poisson": Poisson,
    "impulse": Impulse,
    "jpeg": Jpeg,
}

# Fields that the two numbers of the older scripts' syntax, such as `text,0,50`, stand for.
_POSITIONAL = {"text": "occupancy", "gaussian": "stddev", "impulse": "occupancy"}

# A + or a | separates corruptions only before the name of one; elsewhere it belongs to a value (latin+digits).
_NAME_FOLLOWS = rf"(?=(?:{'|'.join(KINDS)})(?:[:,+|@]|$))"


def _parse_one(text: str, whole: str) -> Any:
    name, separator, rest = re.fullmatch(r"([^:,]*)([:,]?)(.*)", text, re.DOTALL).groups()
    if name not in KINDS:
        raise UserError(f"spec {whole!r}: no corruption is called {name!r}; there are {', '.join(KINDS)}")
    if separator == ",":
        if name not in _POSITIONAL or rest.count(",") != 1:
            raise UserError(f"spec {whole!r}: {text!r}: expected {name}:key=value,…")
        rest = f"{_POSITIONAL[name]}={rest.replace(',', '..')}"
    kind = KINDS[name]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for part in rest.split(",") if rest else []:
        key, equals, value = part.partition("=")
        where = f"spec {whole!r}: {name}: {part!r}"
        if not equals or key not in fields:
            raise UserError(f"{where}: expected one of {', '.join(f'{k}=…' for k in fields) or 'nothing'}")
        if key in values:
            raise UserError(f"{where}: {key} is given twice")
        try:
            values[key] = fields[key].metadata["read"](value)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
    for field in fields.values():
        if field.default is dataclasses.MISSING and field.name not in values:
            raise UserError(f"spec {whole!r}: {name} needs {field.name}=…")
    return kind(**values)


def _parse_chain(text: str, whole: str) -> Any:
    parts = tuple(_parse_one(part, whole) for part in re.split(rf"\+{_NAME_FOLLOWS}", text))
    return parts[0] if len(parts) == 1 else Chain(parts)


def parse(text: str) -> Spec:
    """Reads a spec.

    Args:
      text: the spec, for example `watermark:canvas=mark.png,opacity=0.8..1`.

    Returns:
      One of the dataclasses of this module.

    Raises:
      UserError: the spec is invalid; the message points at the part of `text`.
    """
    options, weights = [], []
    for option in re.split(rf"\|{_NAME_FOLLOWS}", text):
        body, _, weight = option.rpartition("@")
        try:
            weights.append(float(weight) if body else None)
        except ValueError:  # an @ within a file name
            weights.append(None)
        options.append(_parse_chain(option if weights[-1] is None else body, text))
    if len(options) == 1 and weights == [None]:
        return options[0]
    given = sum(weight for weight in weights if weight is not None)
    open_places = weights.count(None)
    if any(weight is not None and not 0.0 < weight <= 1.0 for weight in weights):
        raise UserError(f"spec {text!r}: a weight after @ must be above 0 and at most 1")
    if open_places and given >= 1.0:
        raise UserError(f"spec {text!r}: the weights after @ leave nothing for the alternatives without one")
    if not open_places and not math.isclose(given, 1.0, abs_tol=1e-6):
        raise UserError(f"spec {text!r}: the weights after @ add up to {given:g}, not 1")
    share = (1.0 - given) / max(1, open_places)
    return Choice(tuple(options), tuple(share if weight is None else weight for weight in weights))


def to_string(spec: Spec) -> str:
    """Writes a spec that `parse` reads back unchanged; leaves out parameters at their defaults."""
    if isinstance(spec, Choice):
        return "|".join(f"{to_string(option)}@{_number(w)}" for option, w in zip(spec.options, spec.weights))
    if isinstance(spec, Chain):
        return "+".join(map(to_string, spec.parts))
    name = next(name for name, kind in KINDS.items() if isinstance(spec, kind))
    values = [
        f"{field.name}={field.metadata['write'](getattr(spec, field.name))}"
        for field in dataclasses.fields(spec)
        if getattr(spec, field.name) != field.default
    ]
    return f"{name}:{','.join(values)}" if values else name
