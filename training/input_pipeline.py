"""TFRecords to batches of uint8 crops, by tf.data.

    SPLIT-*.tfrecord -> interleave shards -> decode one window a picture -> several crops from it
        -> shuffle crops -> batch -> prefetch

Corruption is not done here: it belongs to the compiled step, where an accelerator does it at no cost to the host.
"""

from __future__ import annotations

import math

import ml_collections
import numpy as np
import tensorflow as tf

from preprocessing import schema
from training.reflection import mirrored_indices


def _mirror_to(picture: tf.Tensor, side: int) -> tf.Tensor:
    """Continues a picture smaller than `side` by its mirror image; a larger one is returned as it is."""
    height, width = tf.shape(picture)[0], tf.shape(picture)[1]
    rows = mirrored_indices(0, tf.maximum(height, side), height)
    columns = mirrored_indices(0, tf.maximum(width, side), width)
    return tf.gather(tf.gather(picture, rows), columns, axis=1)


def _decode_window(encoded: tf.Tensor, side: int, seed: tf.Tensor) -> tf.Tensor:
    """Decodes a random window of at most `side` pixels a side: uint8 `[h, w, 3]`.

    Of a JPEG only the window is reconstructed; other formats are decoded whole and cut.
    """

    def window_of(shape: tf.Tensor) -> tf.Tensor:
        size = tf.minimum(shape[:2], side)
        draw = tf.random.stateless_uniform([2], seed)
        start = tf.cast(draw * tf.cast(shape[:2] - size + 1, tf.float32), tf.int32)
        return tf.concat([tf.minimum(start, shape[:2] - size), size], 0)

    def jpeg() -> tf.Tensor:
        window = window_of(tf.image.extract_jpeg_shape(encoded))
        return tf.image.decode_and_crop_jpeg(encoded, window, channels=3)

    def other() -> tf.Tensor:
        picture = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        window = window_of(tf.shape(picture))
        return tf.slice(picture, tf.concat([window[:2], [0]], 0), tf.concat([window[2:], [3]], 0))

    return tf.cond(tf.io.is_jpeg(encoded), jpeg, other)


def _random_crops(encoded: tf.Tensor, seed: tf.Tensor, data: ml_collections.ConfigDict) -> tf.Tensor:
    """Several crops from one decoded window, each mirrored left to right at random: uint8 `[K, crop, crop, 3]`."""
    seeds = tf.random.experimental.stateless_split(seed, data.crops_per_image + 1)
    window = _mirror_to(_decode_window(encoded, int(data.crop * data.window), seeds[-1]), data.crop)
    crops = []
    for k in range(data.crops_per_image):
        crop = tf.image.stateless_random_crop(window, [data.crop, data.crop, 3], seeds[k])
        crops.append(tf.image.stateless_random_flip_left_right(crop, seeds[k]))
    return tf.stack(crops)


def _encoded_pictures(data_dir: str, split: str, shuffle_seed: int | None, deterministic: bool) -> tf.data.Dataset:
    paths = schema.shard_paths(data_dir, split)
    files = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    if shuffle_seed is not None:
        files = files.shuffle(len(paths), seed=shuffle_seed).repeat()
    records = files.interleave(
        # A buffer larger than a picture, so that a shard is read in few long requests.
        lambda path: tf.data.TFRecordDataset(path, buffer_size=4 << 20),
        cycle_length=min(16, len(paths)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=deterministic,
    )
    features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    return records.map(lambda record: tf.io.parse_single_example(record, features)["image/encoded"])


def training_batches(config: ml_collections.ConfigDict) -> tf.data.Dataset:
    """Endless batches of crops from the training split.

    Args:
      config: a recipe; `data`, `batch_size` and `seed` are read.

    Returns:
      A dataset of uint8 `[batch_size, crop, crop, 3]`.

    Raises:
      UserError: the folder holds no finished dataset, or the split is not in it.
    """
    data = config.data
    pictures = _encoded_pictures(data.dir, data.train_split, config.seed, data.deterministic)
    # A seed a picture keeps the crops the same however the parallel calls are scheduled.
    seeds = tf.data.Dataset.random(config.seed, rerandomize_each_iteration=False).batch(2, drop_remainder=True)
    crops = tf.data.Dataset.zip((pictures, seeds)).map(
        lambda encoded, seed: _random_crops(encoded, tf.bitcast(tf.cast(seed, tf.uint32), tf.int32), data),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=data.deterministic,
    )
    return (
        crops.unbatch()
        .shuffle(data.shuffle_crops, seed=config.seed)
        .batch(config.batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def validation_crops(config: ml_collections.ConfigDict) -> np.ndarray:
    """The centre crops that validation is measured on: uint8 `[N, val_crop, val_crop, 3]`, N at most `val_crops`.

    A picture smaller than the crop is continued by its mirror image. Where a split has fewer pictures than
    `val_crops`, the pictures' other parts are taken too, so that a small dataset still gives a steady figure.

    Raises:
      UserError: as `training_batches`.
    """
    side, wanted = config.val_crop, config.val_crops
    encoded = _encoded_pictures(config.data.dir, config.data.val_split, None, True)
    pictures = schema.read_dataset_info(config.data.dir)["splits"][config.data.val_split]["images"]
    per_picture = math.ceil(wanted / max(1, min(pictures, wanted)))

    def crops_of(encoded: tf.Tensor) -> tf.Tensor:
        picture = _mirror_to(tf.io.decode_image(encoded, channels=3, expand_animations=False), side)
        free = tf.cast(tf.shape(picture)[:2] - side, tf.float32)
        # The centre first, then places spread by the golden ratio's multiples, which never cluster.
        k = tf.range(per_picture, dtype=tf.float32)
        places = tf.math.floormod(0.5 + k[:, None] * [[0.7548777, 0.5698403]], 1.0)
        corners = tf.cast(places * free, tf.int32)
        return tf.stack([picture[y : y + side, x : x + side] for y, x in map(tf.unstack, tf.unstack(corners))])

    crops = encoded.map(crops_of).unbatch().take(wanted)
    return np.stack(list(crops.as_numpy_iterator()))
