"""The judge of the benchmarks measures what a plain computation measures, and shares no code with what it judges."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from benchmarks.data import marked
from benchmarks.judge import judge
from common.command_line import UserError

pytestmark = pytest.mark.slow


class _Halving(tf.Module):
    """Restores a picture by halving its values, which is wrong everywhere by a known amount."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def restore(self, images):
        return {"restored": images // 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos):
    """`model`, `photos/` of one photograph and one too small, and `canvases/` with a field and a stamp."""
    folder = tmp_path_factory.mktemp("judge")
    module = _Halving()
    tf.saved_model.save(module, str(folder / "model"), signatures={"restore": module.restore})
    (folder / "photos").mkdir()
    Image.open(photos / "images" / "astronaut.jpg").save(folder / "photos" / "a.png")
    Image.new("RGB", (300, 200)).save(folder / "photos" / "b.png")
    (folder / "canvases").mkdir()
    ramp = np.zeros((400, 400, 4), np.uint8)
    ramp[..., :3], ramp[100:300, :, 3] = (200, 100, 50), 128
    Image.fromarray(ramp).save(folder / "canvases" / "field.png")
    Image.fromarray(np.full((20, 30, 4), 255, np.uint8)).save(folder / "canvases" / "stamp.png")
    return folder


def _psnr(picture, clean, where):
    return 10 * np.log10(255**2 / np.square(picture.astype(float) - clean)[where].mean())


def test_the_figures_are_those_of_a_plain_computation(folder):
    canvases = {path.stem: path for path in (folder / "canvases").iterdir()}
    judged = judge(folder / "model", sorted((folder / "photos").iterdir()), canvases, inpaint=True)
    assert judged.keys() == {"field", "stamp"}
    clean = np.asarray(Image.open(folder / "photos" / "a.png"))[128:384, 128:384]
    for name, found in judged.items():
        laid, corner = marked.lay(clean, Image.open(canvases[name]), np.random.default_rng(7))
        covered = np.zeros((256, 256), bool)
        if name == "stamp":
            covered[corner[0] : corner[0] + 20, corner[1] : corner[1] + 30] = True
        else:
            covered[corner[0] + 100 : corner[0] + 300] = True
        # The blend again, from its definition.
        colour, alpha = ((255, 255, 255), 1.0) if name == "stamp" else ((200, 100, 50), 128 / 255)
        opacity = np.random.default_rng(7).uniform(0.88, 0.97) * alpha
        picture = np.where(covered[..., None], np.rint(clean * (1 - opacity) + np.array(colour) * opacity), clean)
        halved = picture // 2
        assert found.images == 1
        assert found.covered_in == pytest.approx(_psnr(picture, clean, covered), abs=0.05)
        assert found.covered_out == pytest.approx(_psnr(halved, clean, covered), abs=0.05)
        assert found.uncovered_out == pytest.approx(_psnr(halved, clean, ~covered), abs=1e-6)
        assert found.psnr_out == pytest.approx(_psnr(halved, clean, np.ones_like(covered)), abs=0.05)
        assert found.uncovered_in == pytest.approx(10 * np.log10(255**2 / 0.01)), "the cap"
    # A stamp on a photograph is filled in better than a field of half the picture.
    assert judged["stamp"].covered_inpainted > judged["stamp"].covered_in + 5
    assert judged["stamp"].covered_inpainted > judged["field"].covered_inpainted


def test_the_command_prints_the_same(folder):
    command = [sys.executable, "-m", "benchmarks.judge", f"--model={folder}/model", f"--photos={folder}/photos"]
    done = subprocess.run([*command, f"--canvases={folder}/canvases"], check=True, capture_output=True, text=True)
    found = judge(folder / "model", [folder / "photos" / "a.png"], {"stamp": folder / "canvases" / "stamp.png"})
    line = f"stamp: covered pixels {found['stamp'].covered_in:.2f} -> {found['stamp'].covered_out:.2f} dB"
    assert line in done.stdout and done.stdout.count("\n") == 2


def test_it_shares_no_code_with_what_it_judges():
    script = "import json, sys, benchmarks.judge; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert not {"preprocessing", "training", "serving", "examples"} & set(json.loads(done.stdout))


def test_without_photographs_the_download_is_named(tmp_path):
    for module in ("generic", "keyed", "estimates", "quality"):
        arguments = ["--nodemo"] if module == "quality" else []
        command = [sys.executable, "-m", f"benchmarks.{module}", f"--photos={tmp_path}/none", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1, module
        assert "python -m preprocessing.download --dataset=coco-val2017 --dest=coco" in done.stderr


def test_photographs_that_are_too_small_are_refused(folder):
    with pytest.raises(UserError, match="no photograph has 256 x 256 pixels"):
        judge(folder / "model", [folder / "photos" / "b.png"], {})
