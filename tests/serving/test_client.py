"""Folders are restored whole, resumed cheaply, and nothing is overwritten unasked."""

import os
from concurrent import futures

import numpy as np
import pytest
import tensorflow as tf

from common.command_line import UserError
from serving.client import Refused, Restorer
from serving.endpoint.endpoint import Endpoint
from serving.endpoint.model_store import ModelStore
from serving.restoring.folder import restore_folder
from tests.serving.conftest import decoded, encoded, model_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def restorer(server):
    with Restorer(server) as restorer:
        yield restorer


@pytest.fixture
def folder(tmp_path, photo):
    """Two pictures, one in a folder of its own, one that is broken, and a file that is none."""
    source = tmp_path / "in"
    (source / "holiday").mkdir(parents=True)
    (source / "holiday" / "a.JPG").write_bytes(encoded(photo[:90, :120], "JPEG", quality=90))
    (source / "b.png").write_bytes(encoded(photo[200:255, 100:203]))
    (source / "broken.jpg").write_bytes(encoded(photo, "JPEG")[:3000])
    (source / "notes.txt").write_text("not a picture")
    return source


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_code_can_restore_bytes_and_pixels(restorer, small_model, photo):
    pixels = photo[:50, :70]
    expected = small_model.signatures["restore"](images=tf.constant(pixels[np.newaxis]))["restored"].numpy()
    np.testing.assert_array_equal(restorer.restore(pixels), expected[0])
    np.testing.assert_array_equal(restorer.restore(np.stack([pixels] * 2)), np.concatenate([expected] * 2))
    np.testing.assert_array_equal(decoded(restorer.restore_bytes(encoded(pixels))), expected[0])
    with pytest.raises(ValueError, match="uint8"):
        restorer.restore(pixels / 255)


def test_a_refusal_is_one_clear_sentence(restorer):
    with pytest.raises(Refused) as error:
        restorer.restore_bytes(b"text")
    assert str(error.value) == "not a JPEG, PNG, BMP or GIF (INVALID_ARGUMENT)"


def test_a_folder_is_restored_with_its_folders(restorer, folder, tmp_path, capsys):
    output = tmp_path / "out"
    summary = restore_folder(restorer, folder, output, progress=False)
    assert files(output) == ["b.png", "holiday/a.JPG"]
    assert (summary.restored, summary.skipped, summary.others) == (2, 0, 1)
    [(name, reason)] = summary.failures
    assert name == "broken.jpg" and reason
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("failed: broken.jpg: ")
    expected = decoded(restorer.restore_bytes((folder / "b.png").read_bytes()))
    np.testing.assert_array_equal(decoded((output / "b.png").read_bytes()), expected)


def test_a_second_run_skips_what_is_there_unless_told_to_overwrite(restorer, folder, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "b.png").write_bytes(b"mine")
    summary = restore_folder(restorer, folder, output, progress=False)
    assert (summary.restored, summary.skipped) == (1, 1)
    assert (output / "b.png").read_bytes() == b"mine"
    assert "skipped 1" in str(summary)
    summary = restore_folder(restorer, folder, output, overwrite=True, progress=False)
    assert (summary.restored, summary.skipped) == (2, 0)
    assert (output / "b.png").read_bytes() != b"mine"


def test_a_single_file_is_restored_under_its_name(restorer, folder, tmp_path):
    restore_folder(restorer, folder / "b.png", tmp_path / "out", progress=False)
    assert files(tmp_path / "out") == ["b.png"]


def test_the_output_may_lie_in_the_input_but_not_be_it(restorer, folder):
    (folder / "broken.jpg").unlink()
    assert restore_folder(restorer, folder, folder / "restored", progress=False).restored == 2
    again = restore_folder(restorer, folder, folder / "restored", progress=False)
    assert (again.restored, again.skipped) == (0, 2)
    for source in (folder, folder / "b.png"):
        with pytest.raises(UserError, match="holds the originals"):
            restore_folder(restorer, source, folder, overwrite=True)


def test_nothing_to_restore_is_an_error(restorer, tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        restore_folder(restorer, tmp_path / "none", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        restore_folder(restorer, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_down_and_a_model_that_is_not_there_are_named(server, folder, tmp_path):
    with Restorer("localhost:1") as nobody, pytest.raises(UserError, match="no server answers at localhost:1; start"):
        restore_folder(nobody, folder, tmp_path / "out")
    with Restorer(server, "other") as other, pytest.raises(UserError, match="no model 'other'"):
        restore_folder(other, folder, tmp_path / "out")
    with (
        Restorer(server, deadline_seconds=1e-9) as hurried,
        pytest.raises(UserError, match="a single pixel: no answer"),
    ):
        restore_folder(hurried, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_deadline_that_passes_is_a_refusal(server, photo):
    with Restorer(server, deadline_seconds=0.001) as hurried, pytest.raises(Refused, match="no answer within 0.001 s"):
        hurried.restore(photo)


def test_a_request_is_tried_again_while_the_server_restarts(identity_dir, photo):
    with ModelStore([model_config("cleanplate", identity_dir)], 0) as store:
        with Endpoint(store) as endpoint:
            address = endpoint.address
        with Restorer(address) as restorer, futures.ThreadPoolExecutor(1) as executor:
            answer = executor.submit(restorer.restore, photo)
            with Endpoint(store, port=int(address.split(":")[1])):
                np.testing.assert_array_equal(answer.result(), photo)


def test_a_server_that_goes_away_ends_the_run_with_a_sentence(identity_dir, folder, tmp_path, monkeypatch):
    (folder / "broken.jpg").unlink()
    with ModelStore([model_config("cleanplate", identity_dir)], 0) as store:
        endpoint = Endpoint(store)
        with Restorer(endpoint.address) as restorer:
            warm_up = restorer.warm_up

            def warm_up_and_stop_the_server():
                warm_up()
                endpoint.__exit__()

            monkeypatch.setattr(restorer, "warm_up", warm_up_and_stop_the_server)
            with pytest.raises(UserError, match="0 of 2 are done; run the same command to go on"):
                restore_folder(restorer, folder, tmp_path / "out", progress=False)
    assert files(tmp_path / "out") == []


def test_writing_fails_whole(restorer, folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    summary = restore_folder(restorer, folder / "b.png", tmp_path / "out", progress=False)
    assert "No space left" in summary.failures[0][1]
    assert files(tmp_path / "out") == []
