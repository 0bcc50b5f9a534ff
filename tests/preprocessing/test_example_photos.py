"""The app's examples carry a mark, which lies beside them for who wants to restore with it."""

import numpy as np
import pytest
from PIL import Image

from common.command_line import UserError
from preprocessing import example_photos


def test_the_examples_are_photographs_under_the_mark_and_one_with_a_date(photos, tmp_path):
    out = tmp_path / "app"
    assert example_photos.write(str(out)) == 4
    examples = sorted((out / "examples").iterdir())
    assert [path.name for path in examples] == ["astronaut.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg"]
    assert Image.open(out / "mark.png").mode == "RGBA"
    for path in examples:
        marked, clean = (np.asarray(Image.open(file)).astype(int) for file in (path, photos / "images" / path.name))
        changed = np.abs(marked - clean).max(axis=2) > 20
        assert 0.001 < changed.mean() < 0.4
        if path.name == "astronaut.jpg":
            assert not changed[:400].any() and not changed[:, :300].any()  # the date, in its corner
        else:
            assert all(changed[rows].any() for rows in np.array_split(np.arange(len(changed)), 3))
    with pytest.raises(UserError, match="is there already"):
        example_photos.write(str(out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app"]
