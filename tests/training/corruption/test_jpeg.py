"""The JPEG loss is Pillow's, for every quality, chroma and size, and is the same compiled, alone or in a batch."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, features

from training import corruption
from training.corruption import jpeg, spec

# libjpeg-turbo, which Pillow's wheels carry, is followed step for step; another libjpeg may round elsewhere.
_TURBO = features.check_feature("libjpeg_turbo")


def _corrupt(text, pictures, jit=False):
    """Corrupts uint8 pictures; returns uint8."""
    pictures = tf.constant(np.asarray(pictures) / 255.0, tf.float32)
    seeds = corruption.picture_seeds(5, tf.constant(1), 0, len(pictures))
    corrupt = jpeg.JpegLoss(spec.parse(text))
    corrupted, alpha = (tf.function(corrupt, jit_compile=True) if jit else corrupt)(pictures, seeds)
    assert alpha.shape == (*pictures.shape[:3], 1) and not alpha.numpy().any(), "nothing is covered"
    levels = corrupted.numpy() * 255.0
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
    return np.rint(levels).astype(np.uint8)


def _pillow(picture, quality, chroma):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling={"444": 0, "420": 2}[chroma])
    return np.asarray(Image.open(buffer).convert("RGB"))


def _psnr(one, other):
    return 10 * np.log10(255**2 / np.square(one.astype(float) - other).mean())


@pytest.fixture(scope="module")
def crops(photos):
    """Crops of different photographs, each [93, 121, 3], a size that is no multiple of 8."""
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((photos / "images").glob("*.jpg"))]
    middles = [(picture.shape[0] // 2, picture.shape[1] // 2) for picture in pictures]
    return np.stack([picture[y - 46 : y + 47, x - 60 : x + 61] for picture, (y, x) in zip(pictures, middles)])


@pytest.mark.parametrize("chroma", ["444", "420"])
@pytest.mark.parametrize("quality", [1, 30, 60, 75, 90, 95, 100])
def test_photographs_lose_what_pillow_loses(crops, quality, chroma):
    ours = _corrupt(f"jpeg:quality={quality},chroma={chroma}", crops)
    theirs = np.stack([_pillow(picture, quality, chroma) for picture in crops])
    assert np.mean([_psnr(a, c) - _psnr(b, c) for a, b, c in zip(ours, theirs, crops)]) == pytest.approx(0, abs=0.5)
    assert np.abs(ours.astype(int) - theirs).mean() < 0.5
    if _TURBO:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("chroma", ["444", "420"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 4), (7, 3), (8, 5), (9, 6), (15, 17), (16, 32), (33, 1)])
def test_any_size_loses_what_pillow_loses(astronaut, size, chroma):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*size, 3), np.uint8)  # the hardest there is: every coefficient, and clipping
    for picture in (noise, astronaut[100:, 200:][: size[0], : size[1]]):
        ours, theirs = _corrupt(f"jpeg:quality=80,chroma={chroma}", [picture])[0], _pillow(picture, 80, chroma)
        assert ours.shape == picture.shape
        assert np.abs(ours.astype(int) - theirs).max() <= (0 if _TURBO else 8)


@pytest.mark.parametrize("chroma", ["444", "420"])
def test_a_flat_picture_stays_flat_and_near(chroma):
    colors = np.random.default_rng(1).integers(0, 256, (64, 3))
    colors[:32] = np.arange(4, 256, 8)[:, None]
    flat = np.broadcast_to(colors[:, None, None, :].astype(np.uint8), (64, 20, 20, 3))
    for quality in (60, 95):
        result = _corrupt(f"jpeg:quality={quality},chroma={chroma}", flat).astype(int)
        assert (np.ptp(result, axis=(1, 2)) == 0).all()
        # A mean is kept to half a step of the DC coefficient, which is 8 means; chroma counts up to 1.772 times.
        luma, blue, _ = jpeg.quantisation_steps(quality)[:, 0, 0] / 16
        assert np.abs(result[:32, 0, 0] - colors[:32]).max() <= luma + 1
        assert np.abs(result[:, 0, 0] - colors).max() <= luma + 1 + 1.772 * (blue + 1)


def test_steps_are_those_in_pillows_files(astronaut):
    for quality in (1, 10, 49, 50, 75, 98, 100):
        buffer = io.BytesIO()
        Image.fromarray(astronaut).save(buffer, "JPEG", quality=quality)
        tables = Image.open(buffer).quantization
        steps = jpeg.quantisation_steps(quality)
        np.testing.assert_array_equal(steps.reshape(3, 64), [tables[0], tables[1], tables[1]])


def test_each_picture_draws_quality_and_chroma(astronaut):
    crop = astronaut[:48, 200:248]
    results = _corrupt("jpeg:quality=60..62,chroma=any", [crop] * 80)
    options = {(q, c): _pillow(crop, q, c).astype(int) for q in (60, 61, 62) for c in ("444", "420")}
    distances = {key: np.abs(results - option).mean((1, 2, 3)) for key, option in options.items()}
    assert np.min(list(distances.values()), axis=0).max() < (1e-9 if _TURBO else 0.5), "each is one of the six"
    drawn = np.argmin(list(distances.values()), axis=0)
    assert np.bincount(drawn, minlength=6).min() >= 3, "and each of the six comes up"


def test_a_picture_is_corrupted_the_same_alone_and_in_a_batch(crops):
    corrupt = jpeg.JpegLoss(spec.parse("jpeg"))
    clean = tf.constant(crops[:5] / 255.0, tf.float32)
    seeds = corruption.picture_seeds(7, tf.constant(11), 0, 5)
    together = corrupt(clean, seeds)[0]
    alone = tf.concat([corrupt(clean[k : k + 1], seeds[k : k + 1])[0] for k in range(5)], 0)
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("chroma", ["444", "420", "any"])
def test_xla_gives_the_same_pictures(crops, chroma):
    # Equal, not only within a level: a coefficient that rounded the other way would change a block by many.
    text = f"jpeg:quality=60..95,chroma={chroma}"
    np.testing.assert_array_equal(_corrupt(text, crops), _corrupt(text, crops, jit=True))


def test_values_between_and_beyond_the_levels_are_taken_to_the_nearest(crops):
    corrupt = jpeg.JpegLoss(spec.parse("jpeg:quality=75"))
    seeds = tf.zeros([1, 2], tf.int32)
    rough = crops[:1] / 127.0 - 0.5 + np.random.default_rng(0).uniform(-0.3, 0.3, crops[:1].shape) / 255
    levels = np.rint(np.clip(rough, 0, 1) * 255) / 255
    np.testing.assert_array_equal(*(corrupt(tf.constant(x, tf.float32), seeds)[0] for x in (rough, levels)))
