"""XLA compiles each corruption once: shapes that depend on a draw would have it compile at every step."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_xla_compiles_every_kind_once_and_not_for_every_draw(canvas_path, tmp_path):
    specs = [
        f"watermark:canvas={canvas_path}",
        f"watermark:canvas={canvas_path},scale=0.5..1,rotate=-30..30,warp=0..2,blur=0..1,layout=tile",
        "text:size=12..20",
        "gaussian",
        "poisson",
        "impulse",
        "jpeg",
        f"watermark:canvas={canvas_path}|text:size=12..20@0.3",
    ]
    # XLA writes every module that it compiles into a folder.
    script = f"""
import training, tensorflow as tf
from training import corruption
for spec in {specs!r}:
    corrupt = tf.function(corruption.build(spec), jit_compile=True)
    for step in range(4):
        corrupt(tf.zeros([2, 17, 16, 3]), corruption.picture_seeds(0, tf.constant(step), 0, 2))
"""
    environment = {**os.environ, "XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    compiled = list(tmp_path.glob("*after_optimizations.txt"))
    assert len(compiled) == len(specs), [path.name for path in compiled]
