"""A download that is killed at any step loses nothing."""

import signal
import subprocess
import time

import pytest

from preprocessing.downloading import archives
from tests.preprocessing.downloading.archive_server import download_command, is_whole, part_of, run, serve

pytestmark = pytest.mark.slow


def test_killed_while_downloading_it_asks_for_nothing_but_the_rest(server, archive, pictures, dest):
    server.stalls_after = archive.bytes // 2
    command = download_command(archive, f"--dest={dest}", f"--base_url={server.url}")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not (part_of(dest).exists() and part_of(dest).stat().st_size > archive.bytes // 4):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    server.stalls_after, come = None, part_of(dest).stat().st_size
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert [(asked.start, asked.status) for asked in server.asked] == [(0, 200), (come, 206)]
    assert is_whole(dest, pictures)


# Python announces these before it does them. `step` comes from the caller.
_KILLED_AT = """
import os, signal, sys
steps = 0
def kill(event, arguments):
    global steps
    if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or event == "open" and "coco" in str(arguments[0]):
        steps += 1
        if steps == {step}:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
"""


@pytest.mark.parametrize("keep_zip", [False, True])
def test_killed_at_any_step_the_folder_is_whole_or_absent_and_the_same_command_ends_well(
    server, pictures, tmp_path, keep_zip
):
    pictures = dict(list(pictures.items())[:4])
    archive = serve(server, pictures)
    step, seen = 0, set()
    while True:
        step += 1
        dest = tmp_path / "coco" / str(step)
        # It begins with a part of a file that is no longer there: dropping that is a step as well.
        part_of(dest).parent.mkdir(parents=True)
        part_of(dest).write_bytes(b"old" * 10_000)
        part_of(dest).with_suffix(".part.version").write_text('"old"')
        arguments = [f"--dest={dest}", f"--base_url={server.url}", *(["--keep_zip"] if keep_zip else [])]
        done = run(download_command(archive, *arguments, before=_KILLED_AT.format(step=step)))
        found = {f"val2017/{path.name}": path.read_bytes() for path in dest.glob("val2017/*")}
        assert found in ({}, {name: content for name, content in pictures.items() if content})
        come = part_of(dest).stat().st_size if part_of(dest).exists() else None
        zipped = any(dest.rglob("val2017.zip"))
        seen |= {"zip and no folder"} if zipped and not found else set()
        seen |= {"half unpacked"} if list(dest.glob("unfinished-*/val2017/*")) and not found else set()
        seen |= {"folder and remains"} if found and list(dest.glob("unfinished-*")) else set()
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        server.asked = []
        archives.download([archive], str(dest), server.url, keep_zip)
        if zipped or found or come == archive.bytes:
            assert server.asked == []
        else:
            assert [asked.start for asked in server.asked] == [come or 0]
        if keep_zip and (dest / "val2017.zip").exists():
            assert (dest / "val2017.zip").read_bytes() == server.files["/zips/val2017.zip"]
            (dest / "val2017.zip").unlink()
        else:
            assert not keep_zip
        assert is_whole(dest, pictures), step
    assert seen == {"zip and no folder", "half unpacked", "folder and remains"}
