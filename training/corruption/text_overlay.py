"""Lines of random characters over images, composed in graph from a glyph atlas.

An image gets several layers, each a full page of lines in one face. Their words are put in a random order, and the
first of them are shown, as many as it takes to cover a randomly drawn share of the image. To find how many, every inked
pixel has a rank: by layer, then word, then letter, then column within the letter. Pixels ranked below a threshold are
shown. The threshold is found by bisection, then moved to the nearest end of a word, or else of a letter, if that still
meets the share closely enough.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from training.corruption import glyphs, random
from training.corruption.compose import COVERED
from training.corruption.spec import Range, Text

# Pages of text per image. Several, because covering 60 % of an image, the most a spec may ask for, takes overlapping
# letters.
_LAYERS = 5
_SHORTEST, _LONGEST = 2, 8  # letters per word

# How a word is written: the script of its first letter, and of the others.
_STYLES = [
    ("lower", "lower"),
    ("upper", "lower"),
    ("upper", "upper"),
    *((script, script) for script in ("digits", "han", "hiragana", "katakana", "hangul")),
]

# A rank's bits, from the highest: layer, word, letter, column. The widest letter sets the number of column bits.
_LAYER_BITS, _WORD_BITS, _LETTER_BITS = (_LAYERS - 1).bit_length(), 12, (_LONGEST - 1).bit_length()
_UNRANKED = np.int32(2**31 - 1)

# How far the covered share of the pixels may be off for the sake of whole words and letters.
_TOLERANCE = 0.015

# Medium gray text is rare, so a uniformly drawn level is moved away from the middle.
_LEVELS = np.round(255 * (lambda x: x * x * (3 - 2 * x))(np.linspace(0, 1, 256))).astype(np.int32)


class TextOverlay:
    """Writes lines of random words over each image: `x = (1 - a) y + a c`.

    Words have 2 to 8 letters: lower case, capitalized, upper case, digits, or one CJK script. The face is drawn per
    layer, opacity and covered share per image, and a random color per line. A pixel that several letters cover takes
    the strongest ink.
    """

    def __init__(self, spec: Text):
        sizes = glyphs.size_ladder(spec.size.low, spec.size.high)
        self._atlas = glyphs.build(spec.alphabet, sizes, spec.font)
        self._styles = np.array(
            [
                [self._atlas.scripts[first], self._atlas.scripts[rest]]
                for first, rest in _STYLES
                if first in self._atlas.scripts
            ],
            np.int32,
        )
        self._column_bits = int(np.diff(self._atlas.columns).max() - 1).bit_length()
        self._occupancy, self._opacity = spec.occupancy, spec.opacity
        self._color = None if spec.color == "any" else int.from_bytes(bytes.fromhex(spec.color), "little")

    def __call__(self, clean: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Overlays every image; see `training.corruption.build` for the contract."""
        height, width = clean.shape[1:3]
        # As many lines and words as the smallest face needs to fill the page.
        lowest = int(self._atlas.pitch.min())
        lines = (height - 2) // lowest + 2
        words = width // int(2 * self._atlas.sizes.min()) + 2
        shapes = [[3], [3, _LAYERS], [6, _LAYERS, lines], [3, _LAYERS, lines, words], [_LAYERS, lines, words, _LONGEST]]
        of_picture, of_layer, of_line, of_word, of_letter = _draw(seeds, shapes)

        face = _whole(of_layer[:, 0], len(self._atlas.sizes))
        columns, ranks = self._set_lines(face, of_picture[:, 0], of_line[:, :2], of_word, of_letter, width)
        inks, ranks, rows = self._paint(face, of_layer[:, 1:], columns, ranks, height)

        opacity = _between(self._opacity, of_picture[:, 1])
        # Ink above this covers a pixel. It is limited to half of full ink, for opacities so low that even full ink is
        # too faint to count. The nudge makes quotients that are whole numbers round the same way everywhere.
        faintest = tf.cast(255.0 * COVERED / tf.maximum(opacity, 2 * COVERED) + 1e-3, tf.int32)
        share = _between(self._occupancy, of_picture[:, 2]) / 100.0
        threshold = _threshold(inks, ranks, faintest, share, self._column_bits)[:, None, None]

        colors = _colors(of_line[:, 2:]) if self._color is None else None
        ink = tf.zeros_like(inks[0])
        color = tf.fill(tf.shape(ink), self._color or 0)
        for layer in range(_LAYERS):
            shown = tf.where(ranks[layer] < threshold, inks[layer], tf.zeros_like(ink))
            if colors is not None:
                of_row = tf.gather(colors[:, layer], rows[layer], batch_dims=1)[:, :, None]
                color = tf.where(shown > ink, of_row, color)
            ink = tf.maximum(ink, shown)
        alpha = (tf.cast(ink, tf.float32) * (opacity[:, None, None] / 255.0))[..., None]
        color = tf.cast(tf.bitcast(color, tf.uint8)[..., :3], tf.float32) / 255.0
        return clean * (1.0 - alpha) + color * alpha, alpha

    def _set_lines(
        self, face: tf.Tensor, mode: tf.Tensor, of_line: tf.Tensor, of_word: tf.Tensor, of_letter: tf.Tensor, width: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Arranges words in lines.

        The arguments from `mode` to `of_letter` are random numbers 0 <= x < 1.

        Args:
          face: int32 `[N, layers]`.
          mode: `[N]`, decides whether words or lines come in random order.
          of_line: `[N, 2, layers, lines]`: order, offset.
          of_word: `[N, 3, layers, lines, words]`: order, style, length.
          of_letter: `[N, layers, lines, words, letters]`.
          width: the image's, in pixels.

        Returns:
          Two int32 `[N, layers, lines, width]`, for every column of every line: where that column of ink begins in the
          atlas, and its rank.
        """
        atlas = self._atlas
        _, layers, lines, words, letters = of_letter.shape
        style = _whole(of_word[:, 1], len(self._styles))
        length = _SHORTEST + _whole(of_word[:, 2], _LONGEST - _SHORTEST + 1)
        script = tf.gather(tf.constant(self._styles), style)  # [..., first or rest, begin or count]
        script = tf.concat([script[..., :1, :], tf.repeat(script[..., 1:, :], letters - 1, axis=-2)], axis=-2)
        glyph = script[..., 0] + _whole(of_letter, script[..., 1])
        # After its letters, a word has a space, then zero-width spaces up to the length that all words share.
        glyph = tf.pad(glyph, [[0, 0]] * 4 + [[0, 1]], constant_values=glyphs.SPACE)
        letter = tf.range(letters + 1)
        glyph = tf.where(letter < length[..., None], glyph, glyphs.SPACE)
        glyph += face[:, :, None, None, None] * atlas.columns.shape[1]
        begin, end = (tf.gather(tf.constant(atlas.columns.ravel()), glyph + k) for k in (0, 1))
        advance = tf.where(letter <= length[..., None], end - begin, 0)

        flat = [-1, words * (letters + 1)]  # one row per line
        advance, begin = tf.reshape(advance, flat), tf.reshape(begin, flat)
        right = tf.cumsum(advance, axis=1)
        left = right - advance
        total = right[:, -1:]
        x = (tf.range(width) + _whole(tf.reshape(of_line[:, 1], [-1, 1]), total)) % total
        place = tf.searchsorted(right, x, side="right")

        by_line = (_whole(of_line[:, 0], 64) * 64)[..., None] + tf.minimum(tf.range(words), 63)
        order = tf.where(mode[:, None, None, None] < 0.5, by_line, _whole(of_word[:, 0], 1 << _WORD_BITS))
        order += tf.range(layers)[:, None, None] * (1 << _WORD_BITS)
        order = order[..., None] * (1 << _LETTER_BITS) + tf.minimum(letter, letters - 1)
        order = tf.reshape(order * (1 << self._column_bits), flat)

        pitch, start = (
            tf.reshape(tf.repeat(tf.gather(tf.constant(table), face), lines, axis=1), [-1, 1])
            for table in (atlas.pitch, atlas.start)
        )
        begin, left, order = (tf.gather(table, place, batch_dims=1) for table in (begin, left, order))
        column = x - left
        shape = [-1, layers, lines, width]
        return tf.reshape(start + (begin + column) * pitch, shape), tf.reshape(order + column, shape)

    def _paint(
        self, face: tf.Tensor, of_layer: tf.Tensor, columns: tf.Tensor, ranks: tf.Tensor, height: int
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
        """Draws full pages.

        Args:
          face: int32 `[N, layers]`.
          of_layer: `[N, 2, layers]`, 0 <= x < 1: space between lines, offset of the first line.
          columns: int32 `[N, layers, lines, width]`, from `_set_lines`.
          ranks: int32 `[N, layers, lines, width]`, from `_set_lines`.
          height: the image's, in pixels.

        Returns:
          Per layer: ink, uint8 `[N, height, width]`; ranks of the pixels, int32 `[N, height, width]`; and the line of
          each row, int32 `[N, height]`.
        """
        pitch = tf.gather(tf.constant(self._atlas.pitch), face)
        spacing = pitch + _whole(of_layer[:, 0], pitch // 3 + 1)
        y = tf.range(height) + _whole(of_layer[:, 1], spacing)[..., None]
        line, row = y // spacing[..., None], tf.minimum(y % spacing[..., None], pitch[..., None] - 1)
        ink = tf.constant(self._atlas.ink)
        inks, ranks_, rows = [], [], tf.unstack(line, axis=1)
        for layer, lines in enumerate(rows):
            place = tf.gather(columns[:, layer], lines, batch_dims=1) + row[:, layer, :, None]
            inks.append(tf.gather(ink, place))
            ranks_.append(tf.gather(ranks[:, layer], lines, batch_dims=1))
        return inks, ranks_, rows


def _threshold(
    inks: list[tf.Tensor], ranks: list[tf.Tensor], faintest: tf.Tensor, share: tf.Tensor, column_bits: int
) -> tf.Tensor:
    """Finds the rank below which ink must be shown to cover a given share of each image.

    Args:
      inks: ink of each layer, uint8 `[N, H, W]`.
      ranks: ranks of each layer, int32 `[N, H, W]`.
      faintest: int32 `[N]`; ink above it covers a pixel.
      share: float32 `[N]`, 0..1.
      column_bits: number of a rank's bits that hold the column.

    Returns:
      int32 `[N]`.
    """
    faintest = tf.cast(faintest, tf.uint8)[:, None, None]
    first = tf.fill(tf.shape(inks[0]), _UNRANKED)
    for ink, rank in zip(inks, ranks):
        first = tf.minimum(first, tf.where(ink > faintest, rank, _UNRANKED))
    pixels = first.shape[1] * first.shape[2]
    first = tf.reshape(first, [-1, pixels])
    wanted = share * pixels

    def covered(first: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(first < threshold[:, None], tf.float32), axis=1)

    def bisect(bit: tf.Tensor, exact: tf.Tensor, first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        higher = exact + bit
        return bit // 2, tf.where(covered(first, higher) <= wanted, higher, exact), first

    # A loop that carries `first` along: otherwise XLA would recompute `first` for every count that uses it.
    steps = _LAYER_BITS + _WORD_BITS + _LETTER_BITS + column_bits
    state = (tf.constant(1 << (steps - 1)), tf.zeros_like(share, tf.int32), first)
    _, exact, first = tf.while_loop(lambda *_: True, bisect, state, maximum_iterations=steps)

    best = exact
    for bits in (column_bits, column_bits + _LETTER_BITS):
        ends = [(exact // (1 << bits) + k) * (1 << bits) for k in (0, 1)]
        misses = [tf.abs(covered(first, end) - wanted) for end in ends]
        nearest = tf.where(misses[0] <= misses[1], ends[0], ends[1])
        best = tf.where(tf.minimum(*misses) <= _TOLERANCE * pixels, nearest, best)
    return best


def _draw(seeds: tf.Tensor, shapes: list[list[int]]) -> list[tf.Tensor]:
    """Draws random numbers of these shapes for every image, all at once: a draw costs more than its numbers."""
    counts = [int(np.prod(shape)) for shape in shapes]
    parts = tf.split(random.per_picture(seeds, sum(counts)), counts, axis=1)
    return [tf.reshape(part, [-1, *shape]) for part, shape in zip(parts, shapes)]


def _whole(draw: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Turns 0 <= x < 1 into a whole number 0 <= n < count."""
    # The product can round up to the count itself.
    return tf.minimum(tf.cast(draw * tf.cast(count, tf.float32), tf.int32), count - 1)


def _between(interval: Range, draw: tf.Tensor) -> tf.Tensor:
    return interval.low + draw * (interval.high - interval.low)


def _colors(draw: tf.Tensor) -> tf.Tensor:
    """Draws colors, half of them gray: `[N, 4, layers, lines]` to RGB packed in int32 `[N, layers, lines]`."""
    levels = tf.gather(tf.constant(_LEVELS), _whole(draw[:, :3], 256))
    red, green, blue = tf.unstack(levels, axis=1)
    grey = draw[:, 3] < 0.5
    return red + tf.where(grey, red, green) * (1 << 8) + tf.where(grey, red, blue) * (1 << 16)
