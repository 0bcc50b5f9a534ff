"""A bank of random stamps: usable canvases, all different, the same for the same seed."""

import numpy as np
import pytest
from PIL import Image

from common import canvas_file
from common.command_line import UserError
from preprocessing.marks import random_stamps


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("banks") / "bank"
    random_stamps.write(str(folder), 40, seed=3)
    return folder


def test_every_stamp_is_a_canvas_and_no_two_are_alike(bank):
    stamps = [canvas_file.read(str(path)) for path in sorted(bank.iterdir())]
    assert len(stamps) == 40
    assert len({stamp.tobytes() for stamp in stamps}) == 40
    assert all(8 <= min(stamp.size) and max(stamp.size) <= 1500 for stamp in stamps)
    strongest = [stamp.getchannel("A").getextrema()[1] for stamp in stamps]
    assert min(strongest) > 50 and max(strongest) > 240


def test_the_seed_decides_what_is_drawn(bank):
    for number in (0, 7):
        again, other = (random_stamps.draw(np.random.default_rng([seed, number]), [None]) for seed in (3, 4))
        assert again.tobytes() == random_stamps.draw(np.random.default_rng([3, number]), [None]).tobytes()
        assert again.tobytes() != other.tobytes()


def test_a_shadow_lies_under_the_stamp_and_not_over_it():
    stamp = Image.new("RGBA", (20, 20), (255, 255, 255, 255))
    shadowed = np.asarray(random_stamps._with_shadow(stamp, np.random.default_rng(0)))
    opaque = shadowed[..., 3] == 255
    assert opaque.sum() >= 400 and shadowed[opaque][:, :3].min() == 255
    around = shadowed[~opaque & (shadowed[..., 3] > 0)]
    assert len(around) > 40 and around[:, :3].max() == 0


def test_a_bank_that_is_there_is_not_replaced(bank):
    with pytest.raises(UserError, match="is there already"):
        random_stamps.write(str(bank), 1, seed=0)
