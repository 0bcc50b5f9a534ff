"""Batches hold genuine crops of the dataset's pictures."""

import numpy as np
import pytest
from PIL import Image
from skimage.feature import match_template

from common.command_line import UserError
from configs import default
from preprocessing.conversion.convert import convert
from training.data import input_pipeline


@pytest.fixture(scope="module")
def coordinates(tmp_path_factory):
    """PNGs whose pixels say where they are: red the column, green the row, blue the picture."""
    images, dataset = tmp_path_factory.mktemp("coordinates"), tmp_path_factory.mktemp("dataset")
    sizes = [(200, 256), (256, 180), (40, 30), (10, 200)]
    pictures = []
    for number, (height, width) in enumerate(sizes):
        rows, columns = np.mgrid[:height, :width]
        pictures.append(np.stack([columns, rows, np.full_like(rows, number)], -1).astype(np.uint8))
        Image.fromarray(pictures[-1]).save(images / f"{number}.png")
    convert(str(images), str(dataset), "train=4", shard_mb=0.001)
    convert(str(images), str(dataset / "v"), "val=4", shard_mb=0.001)
    return dataset, pictures


def _config(dataset, **fields):
    config = default.get_config()
    config.data.dir, config.data.crop, config.data.shuffle_crops = str(dataset), 48, 64
    config.batch_size = 8
    config.update_from_flattened_dict(fields)
    return config


def _take(config, count):
    return np.concatenate(list(input_pipeline.training_batches(config).take(count).as_numpy_iterator()))


def test_every_crop_is_a_part_of_a_picture_or_its_mirror_image(coordinates):
    dataset, pictures = coordinates
    crops = _take(_config(dataset), 20)
    assert crops.dtype == np.uint8 and crops.shape == (160, 48, 48, 3)
    for crop in crops:
        # A picture smaller than the crop is continued by its mirror image, as often as it takes.
        source = pictures[crop[0, 0, 2]]
        grow = [(0, max(0, 48 - size)) for size in source.shape[:2]]
        field = np.pad(source, [*grow, (0, 0)], mode="reflect")
        places = []
        for view in (crop, crop[:, ::-1]):
            corners = np.argwhere((field[..., :2] == view[0, 0, :2]).all(-1))
            places += [
                np.array_equal(field[y : y + 48, x : x + 48], view)
                for y, x in corners
                if y + 48 <= field.shape[0] and x + 48 <= field.shape[1]
            ]
        assert any(places)
    assert set(crops[:, 0, 0, 2]) == {0, 1, 2, 3}, "all pictures come up"
    assert len({crop.tobytes() for crop in crops if crop[0, 0, 2] == 0}) > 20, "and at many places"


def test_jpegs_cropped_while_decoding_are_what_pillow_decodes(photos, astronaut, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "astronaut.jpg").hardlink_to(photos / "images" / "astronaut.jpg")
    convert(str(tmp_path / "images"), str(tmp_path / "dataset"), "train=1")
    crops = _take(_config(tmp_path / "dataset", **{"data.crop": 96}), 1)
    for crop in crops:
        errors = []
        for view in (crop, crop[:, ::-1]):
            y, x = np.unravel_index(match_template(astronaut[..., 1], view[..., 1]).argmax(), (417, 417))
            errors.append(np.abs(astronaut[y : y + 96, x : x + 96].astype(np.float32) - view).mean())
        assert min(errors) < 2.0, "decoders differ by a level or two, other places by far more"


def test_the_same_seed_gives_the_same_batches_when_asked(dataset):
    fields = {"data.deterministic": True, "data.crop": 32}
    first = _take(_config(dataset, **fields), 6)
    np.testing.assert_array_equal(first, _take(_config(dataset, **fields), 6))
    assert not np.array_equal(first, _take(_config(dataset, seed=1, **fields), 6))


def test_validation_takes_centre_crops_in_order_then_other_places(coordinates):
    dataset, pictures = coordinates
    config = _config(dataset / "v", val_crop=100, val_crops=4)
    centres = input_pipeline.validation_crops(config)
    assert centres.shape == (4, 100, 100, 3)
    for crop in centres:
        source = pictures[crop[0, 0, 2]]
        grow = [(0, max(0, 100 - size)) for size in source.shape[:2]]
        field = np.pad(source, [*grow, (0, 0)], mode="reflect")
        y, x = (field.shape[0] - 100) // 2, (field.shape[1] - 100) // 2
        np.testing.assert_array_equal(crop, field[y : y + 100, x : x + 100])
    more = input_pipeline.validation_crops(_config(dataset / "v", val_crop=100, val_crops=10))
    assert len(more) == 10 and len({crop.tobytes() for crop in more if crop[0, 0, 2] == 0}) == 3


def test_an_unfinished_dataset_and_an_absent_split_are_named(tmp_path, dataset):
    with pytest.raises(UserError, match=str(tmp_path)):
        input_pipeline.training_batches(_config(tmp_path))
    with pytest.raises(UserError, match="no split 'holdout'"):
        input_pipeline.training_batches(_config(dataset, **{"data.train_split": "holdout"}))
    with pytest.raises(UserError, match="no split 'holdout'"):
        input_pipeline.validation_crops(_config(dataset, **{"data.val_split": "holdout"}))
