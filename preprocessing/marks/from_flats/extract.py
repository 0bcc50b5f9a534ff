"""Extracts a mark from watermarked flat images.

A mark of color c and opacity a over a flat of level L gives `x = (1 - a) L + a c`. Two flats of different levels
determine both: a from their difference, which the mark reduces, and then c. With more flats, least squares is used.

    canvas, notes = extract(flats.read(["dark.png", "bright.png"]))

From lossless flats (PNG), the opacity is one that is consistent with rounding in all flats; of the colors that rounding
allows, the one nearest to the neighborhood's is taken. From JPEG, the codec's noise is smoothed away: opacity is pulled
toward values that are common in this mark, and chroma, stored at half the resolution, is derived from opacity and luma.
A single flat has no unique answer: the result is the most transparent mark that explains it, so a gray mark becomes
white or black.
"""

from __future__ import annotations

import numpy as np

from common.command_line import UserError
from preprocessing.marks import smoothing
from preprocessing.marks.from_flats import flats


def extract(marked_flats: flats.Flats) -> tuple[np.ndarray, str]:
    """Recovers the canvas.

    Args:
      marked_flats: one or more flats with the same mark.

    Returns:
      The canvas, uint8 RGBA `[H, W, 4]`, and a line on how it was found and what was assumed.

    Raises:
      UserError: there is no mark, or the images are not flats of the given levels with the same mark.
    """
    pictures, levels = marked_flats.pictures, marked_flats.levels
    marked = (np.abs(pictures - levels[:, None, None]) > 0.5).any((0, 3))
    if not marked.any():
        raise UserError("there is no mark on these flats: every pixel has its picture's level")
    # Crop to the mark: a camera's date stamp covers a small part of a large image.
    rows, columns = (np.flatnonzero(marked.any(axis)) for axis in (1, 0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    observed = pictures[(slice(None), *part)].astype(np.float64)
    if len(pictures) == 1:
        found, note = _from_one(observed[0], levels[0], marked_flats.lossy)
    else:
        _refuse_other_pictures(observed, levels, marked[part])
        found = None if marked_flats.lossy else _from_unharmed(observed, levels, marked[part])
        note = f"from {len(pictures)} unharmed flats, as exact as 8 bits allow"
        if found is None:
            found = _from_lossy(observed, levels, marked[part])
            note = f"from {len(pictures)} flats, with what a lossy codec did to them smoothed away"
    canvas = np.zeros((*marked.shape, 4), np.uint8)
    canvas[part] = np.rint(np.clip(found, 0, 255))
    canvas[canvas[..., 3] == 0] = 0
    if not canvas.any():
        raise UserError("there is no mark on these flats, only differences as small as the codec's own")
    return canvas, note


def _opacity(observed: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Fits opacity `[H, W]` by least squares over flats `[N, H, W, C]` and channels, from how much contrast is lost."""
    centred = levels - levels.mean(0)
    return 1 - np.einsum("nhwc,nc->hw", observed, centred) / (centred**2).sum()


def _refuse_other_pictures(observed: np.ndarray, levels: np.ndarray, marked: np.ndarray) -> None:
    opacity = _opacity(observed, levels)[marked]
    if (np.abs(opacity - 0.5) > 0.65).mean() > 0.05:
        named = ", ".join(map(flats.level_name, levels))
        raise UserError(
            f"no mark explains these pictures over levels {named}: the levels are others or in another order, or the "
            "pictures are no flats with the same mark"
        )
    if marked.all() and np.median(opacity) > 0.98:
        raise UserError("these pictures are alike, whatever their levels: nothing but the mark is left of the flats")


def _from_one(observed: np.ndarray, level: np.ndarray, lossy: bool) -> tuple[np.ndarray, str]:
    difference = observed - level
    # At full opacity, a channel can differ from the level at most by the distance to 0 or 255.
    room = np.where(difference > 0, 255 - level, level)
    alpha = np.minimum((np.abs(difference) / np.maximum(room, 1e-9)).max(-1), 1)
    if lossy:
        alpha = _smoothed_opacity(255 * alpha, alpha > 0)[0]
    color = level + difference / np.maximum(alpha, 1e-9)[..., None]
    lighter = np.average(difference.sum(-1) > 0, weights=alpha + 1e-9)
    note = (
        "from one flat, which has no single answer. Assumed: the most transparent mark that explains it; if it is "
        f"grey, white where it is lighter than level {flats.level_name(level)} ({100 * lighter:.0f} % of it) and black "
        f"where it is darker ({100 * (1 - lighter):.0f} %). A second flat, of another grey, leaves nothing to assume"
    )
    return np.concatenate([color, 255 * alpha[..., None]], -1), note


def _from_unharmed(observed: np.ndarray, levels: np.ndarray, marked: np.ndarray) -> np.ndarray | None:
    """Returns RGBA `[H, W, 4]`, 0..255; None if the images are not explained by a mark and rounding alone."""
    spread = 255 / np.sqrt(((levels - levels.mean(0)) ** 2).mean(1).sum())
    rough = 255 * _opacity(observed, levels)
    pixels = observed[:, marked]
    nearest = np.rint(rough[marked])
    lowest, highest = np.full(nearest.shape, np.inf), np.full(nearest.shape, -np.inf)
    reach = int(np.ceil(spread))
    for offset in range(-reach, reach + 1):
        alpha = np.clip(nearest + offset, 0, 255)
        low, high = _premultiplied_range(pixels, levels, alpha / 255)
        possible = ((high - low).min(-1) >= -1e-6) & (alpha > 0)
        lowest = np.where(possible, np.minimum(lowest, alpha), lowest)
        highest = np.where(possible, np.maximum(highest, alpha), highest)
    possible = np.isfinite(lowest)
    if possible.mean() < 0.99:
        return None
    likely = np.rint(smoothing.guided(rough, spread**2 / 6)[marked])
    alpha = np.where(possible, np.clip(likely, lowest, highest), np.clip(nearest, 1, 255)) / 255
    low, high = _premultiplied_range(pixels, levels, alpha)
    found = np.zeros((*marked.shape, 4))
    found[marked, 3] = 255 * alpha
    found[marked, :3] = np.clip((low + high) / 2 / alpha[:, None], 0, 255)
    likely = _neighbourhood(found[..., :3], found[..., 3] ** 2)[marked]
    found[marked, :3] = np.clip(likely, low / alpha[:, None], np.maximum(low, high) / alpha[:, None])
    return found


def _premultiplied_range(pixels: np.ndarray, levels: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and largest `a c` `[P, 3]` that, given `alpha` `[P]`, round to `pixels` `[N, P, 3]`."""
    own = pixels - (1 - alpha)[:, None] * levels[:, None]
    return np.maximum(own.max(0) - 0.5, 0), np.minimum(own.min(0) + 0.5, 255 * alpha[:, None])


def _neighbourhood(color: np.ndarray, weight: np.ndarray, radius: int = 1) -> np.ndarray:
    """Returns the weighted mean color around each pixel; two box filters approximate a Gaussian."""
    color = color.reshape(*weight.shape, -1)
    total = smoothing.box(smoothing.box(weight[..., None], radius), radius)
    return smoothing.box(smoothing.box(color * weight[..., None], radius), radius) / np.maximum(total, 1e-9)


def _from_lossy(observed: np.ndarray, levels: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Returns RGBA `[H, W, 4]` in levels, which may exceed 0..255."""
    ycbcr, grounds = observed @ flats.YCBCR.T, levels @ flats.YCBCR.T
    # Opacity from luma alone, because chroma has half the resolution.
    rough = 255 * _opacity(ycbcr[..., :1], grounds[:, :1])
    alpha, deviation = _smoothed_opacity(rough, marked)
    own = (ycbcr - (1 - alpha)[..., None] * grounds[:, None, None]).mean(0)
    luma_noise = deviation / 255 * np.sqrt(((grounds - grounds.mean(0))[:, 0] ** 2).mean())
    luma = _shrunk_luma(own[..., 0] / np.maximum(alpha, 1e-3), alpha, luma_noise)
    chroma = _chroma_by_luma(own, alpha, luma, marked, luma_noise)
    color = np.concatenate([luma[..., None], chroma], -1) @ flats.TO_RGB.T
    return np.concatenate([color, 255 * alpha[..., None]], -1)


def _smoothed_opacity(rough: np.ndarray, marked: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns opacity 0..1 without the codec's noise, and the noise's standard deviation in levels, like `rough`."""
    # Around the mark, true opacity is 0, so small values there are noise.
    sizes = np.abs(rough[marked])
    around = sizes[(sizes > 0.5) & (sizes < min(24, 0.15 * np.percentile(sizes, 99)))]
    deviation = max(1.0, float(np.sqrt((around**2).mean()))) if around.size else 1.0
    alpha = np.zeros(marked.shape)
    # The guided filter halves the noise.
    alpha[marked] = smoothing.toward_usual(smoothing.guided(rough, deviation**2)[marked], 0.5 * deviation) / 255
    alpha[255 * alpha < deviation] = 0
    return alpha, deviation


def _shrunk_luma(luma: np.ndarray, alpha: np.ndarray, noise: float) -> np.ndarray:
    """Applies a Wiener filter: the fainter the mark, the more its luma is pulled toward its neighborhood's."""
    weight = alpha**2
    variance = (noise / np.maximum(alpha, 0.01)) ** 2
    mean = _neighbourhood(luma, weight)[..., 0]
    spread = _neighbourhood((luma - mean) ** 2, weight)[..., 0] - _neighbourhood(variance, weight)[..., 0]
    spread = np.maximum(spread, 0)
    return mean + spread / (spread + variance + 1e-9) * (luma - mean)


def _chroma_by_luma(
    own: np.ndarray, alpha: np.ndarray, luma: np.ndarray, marked: np.ndarray, noise: float, radius: int = 4
) -> np.ndarray:
    """Returns chroma `[H, W, 2]` at full resolution.

    If a mark has two colors (letters and outline), premultiplied chroma is a linear function of opacity and
    premultiplied luma. The same function holds for blurred versions, so it is fitted to them, window by window, and
    applied to the sharp ones.
    """

    def window(values: np.ndarray) -> np.ndarray:
        return smoothing.box(smoothing.box(np.where(marked, values, 0), radius), radius)

    opacity, blurred_luma = smoothing.box(255 * alpha, 1), smoothing.box(own[..., 0], 1)
    # If the mark has one color, the two coefficients are undetermined; the ridge then favors opacity over luma.
    ridge = noise**2 * window(np.ones_like(alpha)) + 1e-6
    aa, al, ll = window(opacity**2) + 0.2 * ridge, window(opacity * blurred_luma), window(blurred_luma**2) + 2 * ridge
    determinant = aa * ll - al * al
    chroma = []
    for channel in (1, 2):
        ac, lc = window(opacity * own[..., channel]), window(blurred_luma * own[..., channel])
        by_opacity, by_luma = (ll * ac - al * lc) / determinant, (aa * lc - al * ac) / determinant
        chroma.append(255 * by_opacity + by_luma * luma)
    return np.stack(chroma, -1)
