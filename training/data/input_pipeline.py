"""The tf.data pipeline from TFRecords to batches of uint8 crops.

    SPLIT-*.tfrecord -> interleave shards -> decode one window per image -> several crops from it
        -> shuffle crops -> batch -> prefetch

Corruption is not applied here: it is part of the compiled step, where an accelerator does it at no cost to the host.
"""

from __future__ import annotations

import math

import ml_collections
import numpy as np
import tensorflow as tf

from common.command_line import UserError
from preprocessing.dataset import schema
from training.data import file_systems
from training.data.reflection import mirrored_indices


def _mirror_to(picture: tf.Tensor, side: int) -> tf.Tensor:
    """Extends an image smaller than `side` by its mirror image; returns a larger one unchanged."""
    height, width = tf.shape(picture)[0], tf.shape(picture)[1]
    rows = mirrored_indices(0, tf.maximum(height, side), height)
    columns = mirrored_indices(0, tf.maximum(width, side), width)
    return tf.gather(tf.gather(picture, rows), columns, axis=1)


def _decode_window(encoded: tf.Tensor, side: int, seed: tf.Tensor) -> tf.Tensor:
    """Decodes a random window of at most `side` pixels per side: uint8 `[h, w, 3]`.

    For a JPEG, only the window is reconstructed; other formats are decoded whole and then cropped.
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
    """Cuts several crops from one decoded window, each flipped left to right at random: uint8 `[K, crop, crop, 3]`."""
    seeds = tf.random.experimental.stateless_split(seed, data.crops_per_image + 1)
    window = _mirror_to(_decode_window(encoded, int(data.crop * data.window), seeds[-1]), data.crop)
    crops = []
    for k in range(data.crops_per_image):
        crop = tf.image.stateless_random_crop(window, [data.crop, data.crop, 3], seeds[k])
        crops.append(tf.image.stateless_random_flip_left_right(crop, seeds[k]))
    return tf.stack(crops)


def _records(paths: tf.data.Dataset, shards: int, deterministic: bool) -> tf.data.Dataset:
    """Reads encoded images from shards, several shards at a time."""
    records = paths.interleave(
        # The buffer (4 MiB) is larger than an image, so that a shard is read in a few long requests.
        lambda path: tf.data.TFRecordDataset(path, buffer_size=4 << 20),
        cycle_length=min(16, shards),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=deterministic,
    )
    features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    return records.map(lambda record: tf.io.parse_single_example(record, features)["image/encoded"])


def _shard_paths(data: ml_collections.ConfigDict, split: str) -> list[str]:
    paths = schema.shard_paths(data.dir, split)
    file_systems.require(data.dir, paths[0])
    return paths


def _count(data: ml_collections.ConfigDict, split: str) -> int:
    return schema.read_dataset_info(data.dir)["splits"][split]["images"]


def _shuffled_crops(config: ml_collections.ConfigDict, worker: int, workers: int) -> tf.data.Dataset:
    """Yields crops in an order that depends on which shard is read first: fastest, and never the same twice."""
    data = config.data
    paths = _shard_paths(data, data.train_split)
    if len(paths) < workers:
        raise UserError(
            f"data {data.dir}: {len(paths)} shards of {data.train_split} are too few for {workers} workers; convert "
            "again with a smaller --shard_mb"
        )
    paths = paths[worker::workers]
    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths), seed=config.seed).repeat()
    seeds = tf.data.Dataset.random(config.seed + worker, rerandomize_each_iteration=False).batch(2, drop_remainder=True)
    crops = tf.data.Dataset.zip((_records(files, len(paths), False), seeds)).map(
        lambda encoded, seed: _random_crops(encoded, tf.bitcast(tf.cast(seed, tf.uint32), tf.int32), data),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )
    return crops.unbatch().shuffle(data.shuffle_crops, seed=config.seed)


def _crops_in_blocks(config: ml_collections.ConfigDict, first: int) -> tf.data.Dataset:
    """Yields crops in an order that depends only on the seed, so that a run can resume at any crop.

    The order from a shuffle buffer depends on everything that went through it before. Here each block of crops is
    shuffled with a seed from the block's number, and everything before the first block is skipped without decoding.

    Args:
      config: a recipe.
      first: number of crops to skip.
    """
    data = config.data
    paths, images = _shard_paths(data, data.train_split), _count(data, data.train_split)
    pictures_a_block = max(1, data.shuffle_crops // data.crops_per_image)
    crops_a_block = pictures_a_block * data.crops_per_image
    first_block, within_block = divmod(first, crops_a_block)
    first_epoch, within_epoch = divmod(first_block * pictures_a_block, images)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.constant(paths), tf.stack([config.seed, number]))
        records = _records(tf.data.Dataset.from_tensor_slices(order), len(paths), True)
        return records.skip(tf.where(number == first_epoch, np.int64(within_epoch), np.int64(0)))

    def crops_of(picture: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
        # The 1 keeps these seeds apart from those of epochs and blocks.
        seed = tf.random.experimental.stateless_fold_in([config.seed, 1], tf.cast(picture, tf.int32))
        return _random_crops(encoded, seed, data)

    def shuffled(block: tf.Tensor, crops: tf.Tensor) -> tf.Tensor:
        seed = tf.random.experimental.stateless_fold_in([config.seed, 2], tf.cast(block, tf.int32))
        flat = tf.reshape(crops, [-1, data.crop, data.crop, 3])
        return tf.random.experimental.stateless_shuffle(flat, seed)

    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int32).max, output_type=tf.int32)
    return (
        epochs.flat_map(epoch)
        .enumerate(first_block * pictures_a_block)
        .map(crops_of, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(pictures_a_block)
        .enumerate(first_block)
        .map(shuffled)
        .unbatch()
        .skip(within_block)
    )


def training_batches(
    config: ml_collections.ConfigDict, first_step: int = 0, worker: int = 0, workers: int = 1
) -> tf.data.Dataset:
    """Returns endless batches of crops from the training split.

    Args:
      config: a recipe; reads `data`, `batch_size` and `seed`.
      first_step: with `data.deterministic`, the step that the first batch belongs to.
      worker: this worker's index, from 0; each worker reads its own shards.
      workers: number of workers.

    Returns:
      A dataset of uint8 `[batch_size, crop, crop, 3]`.

    Raises:
      UserError: the folder holds no finished dataset, lacks the split or has fewer shards than workers; or the URL
        cannot be read.
    """
    if config.data.deterministic:
        crops = _crops_in_blocks(config, first_step * config.batch_size)
    else:
        crops = _shuffled_crops(config, worker, workers)
    options = tf.data.Options()
    # Already sharded by worker above. TensorFlow's own sharding fails: it finds no files in the random-seed dataset.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return crops.batch(config.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE).with_options(options)


def validation_crops(config: ml_collections.ConfigDict) -> np.ndarray:
    """Reads the center crops used for validation: uint8 `[N, val_crop, val_crop, 3]`, N at most `val_crops`.

    An image smaller than the crop is extended by its mirror image. If the split has fewer images than `val_crops`,
    off-center crops are taken too, so that a small dataset still gives a stable figure.

    Raises:
      UserError: the folder holds no finished dataset or lacks the split, or the URL cannot be read.
    """
    side, wanted = config.val_crop, config.val_crops
    paths = _shard_paths(config.data, config.data.val_split)
    encoded = _records(tf.data.Dataset.from_tensor_slices(paths), len(paths), True)
    pictures = _count(config.data, config.data.val_split)
    per_picture = math.ceil(wanted / max(1, min(pictures, wanted)))

    def crops_of(encoded: tf.Tensor) -> tf.Tensor:
        picture = _mirror_to(tf.io.decode_image(encoded, channels=3, expand_animations=False), side)
        free = tf.cast(tf.shape(picture)[:2] - side, tf.float32)
        # The center first, then places spread by multiples of the 2-D golden ratio, which never cluster.
        k = tf.range(per_picture, dtype=tf.float32)
        places = tf.math.floormod(0.5 + k[:, None] * [[0.7548777, 0.5698403]], 1.0)
        corners = tf.cast(places * free, tf.int32)
        return tf.stack([picture[y : y + side, x : x + side] for y, x in map(tf.unstack, tf.unstack(corners))])

    crops = encoded.map(crops_of).unbatch().take(wanted)
    return np.stack(list(crops.as_numpy_iterator()))
