"""The preview shows what training will see."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from common.command_line import UserError
from training import corruption
from training.preview import preview


def test_a_sheet_shows_each_picture_clean_and_with_every_seed(photos, canvas_path, tmp_path):
    spec = f"watermark:canvas={canvas_path},scale=0.5..1"
    preview(spec, str(photos / "images"), str(tmp_path / "sheet.png"), rows=2, columns=3, side=128, seed=7)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    # 8 pixels of margin, 20 of caption above each row.
    crops = [[sheet[28 + 156 * r :, 8 + 136 * c :][:128, :128] for c in range(4)] for r in range(2)]
    for number, (name, row) in enumerate(zip(("astronaut", "brick"), crops)):
        picture = Image.open(photos / "images" / f"{name}.jpg").convert("RGB")
        np.testing.assert_array_equal(row[0], np.asarray(picture)[192:320, 192:320])
        for column in range(3):
            clean = tf.constant(row[0][None] / 255.0, tf.float32)
            seeds = tf.constant([[7 + column, number]], tf.int32)
            expected = corruption.build(spec)(clean, seeds)[0][0] * 255
            assert np.abs(expected - row[1 + column]).max() <= 1.001
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    "spec, images, words", [("clean", "nowhere", "nowhere"), ("clear", ".", "'clear'"), ("clean", ".", "no pictures")]
)
def test_what_cannot_be_shown_is_named(tmp_path, monkeypatch, spec, images, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        preview(spec, images, "sheet.png")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_sheet(photos, tmp_path):
    command = [sys.executable, "-m", "training.preview", "--spec=clean", f"--images={photos / 'images' / 'coffee.jpg'}"]
    out = tmp_path / "new" / "sheet.png"
    done = subprocess.run([*command, f"--out={out}", "--alpha"], check=False, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == f"{out}\n" and done.stderr == ""
    assert Image.open(out).width > 1200
