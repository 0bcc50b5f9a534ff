"""Downloading: from a server on this machine that breaks off, changes its mind, sends nonsense, or is merely slow."""

import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from common.command_line import UserError
from preprocessing.conversion.convert import convert
from preprocessing.downloading import archives, transfer

_LOST_IN_A_BREAK = 1 << 14  # bytes: what is on the way when a connection breaks need not be on the disk


class _Server(ThreadingHTTPServer):
    """Serves `files`, path -> bytes. What it does wrong, and what it was asked for, are attributes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files = {}
        self.etags = {}
        self.dates = {}  # Last-Modified
        self.asked = []  # a namespace a request: path, start, if_range, status
        self.statuses = []  # answered instead, one a request
        self.cuts = []  # bytes after which the body breaks off, one a request
        self.ranges = True
        self.conditions = True  # knows If-Range
        self.lengths = True  # says how long the body is
        self.stalls_after = None  # bytes, then silence until `go_on`
        self.go_on = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        asked = SimpleNamespace(path=self.path, start=start, if_range=self.headers.get("If-Range"), status=200)
        server.asked.append(asked)
        content = server.files.get(self.path)
        etag, date = server.etags.get(self.path), server.dates.get(self.path)
        if server.statuses or content is None:
            asked.status = server.statuses.pop(0) if server.statuses else 404
            self.send_error(asked.status)
            return
        if not server.ranges or (server.conditions and asked.if_range not in (None, etag, date)):
            start = 0
        if start >= len(content):
            asked.status = 416
            self.send_error(416)
            return
        asked.status = 206 if start else 200
        self.send_response(asked.status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        if etag:
            self.send_header("ETag", etag)
        if date:
            self.send_header("Last-Modified", date)
        self.end_headers()
        body = content[start:]
        if server.cuts:
            body = body[: server.cuts.pop(0)]
        if server.stalls_after is not None:
            self.wfile.write(body[: server.stalls_after])
            body = body[server.stalls_after :]
            server.go_on.wait()
        self.wfile.write(body)

    def log_message(self, *unused):
        pass


@pytest.fixture
def server():
    running = _Server()
    threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
    yield running
    running.go_on.set()
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch):
    monkeypatch.setattr(transfer, "_RETRIES", transfer._RETRIES.new(backoff_factor=0))


def _zipped(entries):
    """A zip of name -> bytes. Photographs are not compressed in COCO's own either."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def _serve(server, entries, folder="val2017", path="zips/val2017.zip", content=None):
    """Puts a zip on the server and returns its description."""
    content = content or _zipped(entries)
    server.files[f"/{path}"] = content
    server.etags[f"/{path}"] = '"first"'
    files = sum(not name.endswith("/") for name in entries)
    unpacked = sum(map(len, entries.values()))
    return archives.Archive(path, hashlib.sha256(content).hexdigest(), len(content), folder, files, unpacked)


@pytest.fixture
def pictures(photographs):
    """Name in the zip -> bytes, with an entry for the folder, as in COCO's."""
    return {"val2017/": b""} | {f"val2017/{path.name}": path.read_bytes() for path in photographs}


@pytest.fixture
def archive(server, pictures):
    """A zip of twelve photographs, served and described."""
    described = _serve(server, pictures)
    assert described.bytes > 10 * _LOST_IN_A_BREAK
    return described


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "coco"


def _whole(dest, pictures):
    """Whether `dest` holds the pictures, every byte of them, and nothing else."""
    found = {str(path.relative_to(dest)): path.read_bytes() for path in dest.rglob("*") if path.is_file()}
    return found == {name: content for name, content in pictures.items() if not name.endswith("/")} and [
        path.name for path in dest.iterdir()
    ] == ["val2017"]


def _part(dest):
    return dest / "unfinished-val2017" / "val2017.zip.part"


def _command(archive, *arguments, before=""):
    """The command line of preprocessing.download, with `archive` in the place of COCO's val2017."""
    code = (
        "from preprocessing import download\nfrom preprocessing.downloading import archives\n"
        f"archives.COCO['coco-val2017'] = archives.Archive(*{tuple(archive)!r})\n"
        f"{before}\n"
        "download.run()"
    )
    return [sys.executable, "-c", code, "--dataset=coco-val2017", *arguments]


def _run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_command_brings_the_pictures_and_does_nothing_the_second_time(server, archive, pictures, dest):
    command = _command(archive, f"--dest={dest}", f"--base_url={server.url}/")
    done = _run(command)
    assert done.returncode == 0, done.stderr
    assert f"{dest}/val2017: 12 files" in done.stderr
    assert all(bar in done.stderr for bar in ("\nval2017.zip: 100%", "checking val2017.zip", "unpacking val2017.zip"))
    assert _whole(dest, pictures)
    assert [asked.path for asked in server.asked] == ["/zips/val2017.zip"]
    before = {path: path.stat().st_mtime_ns for path in [dest, *dest.rglob("*")]}
    done = _run(command)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [f"{dest}/val2017: there already"]
    assert {path: path.stat().st_mtime_ns for path in [dest, *dest.rglob("*")]} == before
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--dataset=coco-val2017,coco2017", "--dest=x"], "--dataset=coco2017: not known; there are coco-train2017, "),
        (["--dataset=coco-val2017", "--dest=s3://bucket/coco"], "--dest=s3://bucket/coco: not a local folder"),
        (["--dataset=coco-val2017", "--dest=x", "y"], "unexpected argument 'y'"),
        (["--dataset=coco-val2017", f"--dest={__file__}"], f"--dest={__file__}: cannot be written"),
        (["--dataset=coco-val2017"], "--dest"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_1(arguments, complaint):
    done = _run([sys.executable, "-m", "preprocessing.download", *arguments])
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and complaint in line


def test_what_was_downloaded_is_converted_as_the_readme_says(server, coco_folder, photographs, tmp_path):
    dest = tmp_path / "downloaded"
    images = {f"train2017/{path.name}": path.read_bytes() for path in photographs}
    texts = {
        "annotations/instances_train2017.json": coco_folder.instances.read_bytes(),
        "annotations/captions_train2017.json": coco_folder.captions.read_bytes(),
    }
    wanted = [
        _serve(server, images, "train2017", "zips/train2017.zip"),
        _serve(server, texts, "annotations", "annotations/annotations_trainval2017.zip"),
    ]
    archives.download(wanted, str(dest), server.url)
    assert sorted(path.name for path in dest.iterdir()) == ["annotations", "train2017"]
    info = convert(
        str(dest / "train2017"),
        str(tmp_path / "tfrecords"),
        annotations=str(dest / "annotations/instances_train2017.json"),
        captions=str(dest / "annotations/captions_train2017.json"),
    )
    assert info["splits"]["train"]["images"] == 12


def test_cocos_own_files_are_asked_for_where_coco_says_they_are():
    assert {f"{archives.COCO_URL}/{archive.path}" for archive in archives.COCO.values()} == {
        "http://images.cocodataset.org/zips/train2017.zip",
        "http://images.cocodataset.org/zips/val2017.zip",
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
    }
    assert all(re.fullmatch("[0-9a-f]{64}", archive.sha256) for archive in archives.COCO.values())


@pytest.mark.parametrize("version", ['"first"', "Tue, 10 Jul 2018 20:13:26 GMT"])
def test_a_body_that_breaks_off_several_times_is_resumed_in_the_same_run(server, archive, pictures, dest, version):
    if version != '"first"':
        server.etags, server.dates = {}, {"/zips/val2017.zip": version}
    server.cuts = [150_000, 100_000, 1 << 16]
    archives.download([archive], str(dest), server.url)
    assert _whole(dest, pictures)
    starts = [asked.start for asked in server.asked]
    assert [asked.status for asked in server.asked] == [200, 206, 206, 206]
    assert [asked.if_range for asked in server.asked] == [None, version, version, version]
    for start, (before, cut) in zip(starts[1:], zip(starts, [150_000, 100_000, 1 << 16])):
        assert before + cut - _LOST_IN_A_BREAK < start <= before + cut


def test_breaks_that_bring_nothing_end_the_run_and_the_next_goes_on(server, archive, pictures, dest):
    server.cuts = [150_000, *[0] * 50]
    with pytest.raises(UserError, match=r"val2017.zip: breaks off again and again, last after 1\d\d,\d\d\d of"):
        archives.download([archive], str(dest), server.url)
    assert len(server.asked) < 10
    assert _part(dest).read_bytes() == server.files["/zips/val2017.zip"][: _part(dest).stat().st_size]
    come, server.cuts, server.asked = _part(dest).stat().st_size, [], []
    archives.download([archive], str(dest), server.url)
    assert [(asked.start, asked.status) for asked in server.asked] == [(come, 206)]
    assert _whole(dest, pictures)


def test_attempts_are_bounded_however_little_each_of_them_brings(server, archive, dest, monkeypatch):
    monkeypatch.setattr(transfer, "_MAX_ATTEMPTS", 4)
    server.cuts = [1 << 15] * 50
    with pytest.raises(UserError, match="again and again"):
        archives.download([archive], str(dest), server.url)
    assert len(server.asked) == 4


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_a_file_that_changed_between_attempts_is_fetched_anew_not_spliced(
    server, archive, pictures, dest, caplog, knows_if_range
):
    right = server.files["/zips/val2017.zip"]
    server.files["/zips/val2017.zip"] = right[::-1]
    server.cuts = [300_000, *[0] * 5]
    with pytest.raises(UserError):
        archives.download([archive], str(dest), server.url)
    server.files["/zips/val2017.zip"], server.etags["/zips/val2017.zip"] = right, '"second"'
    server.conditions, server.cuts, server.asked = knows_if_range, [], []
    archives.download([archive], str(dest), server.url)
    assert _whole(dest, pictures)
    assert server.asked[0].start > 0 and server.asked[0].if_range == '"first"'
    assert server.asked[-1].status == 200
    assert "the file there is another one now; starting anew" in caplog.text


def test_a_server_that_has_no_ranges_is_asked_anew_and_that_is_said(server, archive, pictures, dest, caplog):
    server.ranges = False
    server.cuts = [300_000]
    archives.download([archive], str(dest), server.url)
    assert _whole(dest, pictures)
    assert [asked.status for asked in server.asked] == [200, 200]
    assert "the server sends whole files only; starting anew" in caplog.text


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_or_a_date_nothing_is_resumed(server, archive, pictures, dest, caplog, etag):
    server.etags["/zips/val2017.zip"] = etag
    server.cuts = [300_000]
    archives.download([archive], str(dest), server.url)
    assert _whole(dest, pictures)
    assert [asked.start for asked in server.asked] == [0, 0]
    assert "does not say which version of the file it sends; starting anew" in caplog.text


def test_a_server_that_never_stops_sending_does_not_fill_the_disk(server, archive, pictures, dest):
    server.lengths = False
    server.files["/zips/val2017.zip"] += b"more" * 100_000
    archives.download([archive], str(dest), server.url)
    assert _whole(dest, pictures)


def test_wrong_bytes_are_deleted_and_nothing_is_unpacked(server, archive, dest):
    wrong = bytearray(server.files["/zips/val2017.zip"])
    wrong[-1] ^= 1  # in the zip's closing comment length: no entry's CRC-32 would tell
    server.files["/zips/val2017.zip"] = bytes(wrong)
    with pytest.raises(UserError) as raised:
        archives.download([archive], str(dest), server.url)
    message = str(raised.value)
    assert f"{server.url}/zips/val2017.zip: SHA-256 {hashlib.sha256(wrong).hexdigest()}" in message
    assert f"expected {archive.sha256}" in message and "--base_url" in message and "\n" not in message
    assert list(dest.iterdir()) == []


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_a_file_of_another_size_is_refused_before_it_is_fetched_and_costs_nothing(
    server, archive, pictures, dest, knows_if_range
):
    right = server.files["/zips/val2017.zip"]
    server.cuts = [300_000, *[0] * 5]
    with pytest.raises(UserError):
        archives.download([archive], str(dest), server.url)
    come = _part(dest).stat().st_size
    server.files["/zips/val2017.zip"], server.etags["/zips/val2017.zip"] = b"<html>Sign in", None
    server.conditions, server.cuts = knows_if_range, []
    with pytest.raises(UserError, match=f"13 bytes where a file of {archive.bytes} bytes was expected"):
        archives.download([archive], str(dest), server.url)
    assert _part(dest).stat().st_size == come
    server.files["/zips/val2017.zip"], server.etags["/zips/val2017.zip"] = right, '"first"'
    archives.download([archive], str(dest), server.url)
    assert server.asked[-1].start == come and _whole(dest, pictures)


@pytest.mark.parametrize(
    ("status", "requests", "complaint"),
    [
        (404, 1, "404 Not Found; is --base_url right"),
        (403, 1, "403 Forbidden; is --base_url right"),
        (503, 5, "503 Service Unavailable; run the same command again later"),
    ],
)
def test_an_error_of_the_server_is_one_line(server, archive, dest, status, requests, complaint):
    server.statuses = [status] * 50
    with pytest.raises(UserError, match=f"^{server.url}/zips/val2017.zip: {complaint}") as raised:
        archives.download([archive], str(dest), server.url)
    assert "\n" not in str(raised.value)
    assert len(server.asked) == requests
    assert list(dest.iterdir()) == []


def test_a_server_that_is_busy_for_a_moment_is_asked_again(server, archive, pictures, dest):
    server.statuses = [503, 429]
    archives.download([archive], str(dest), server.url)
    assert _whole(dest, pictures)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no.such.host.invalid", "no-url"])
def test_a_server_that_is_not_there_is_one_line(archive, dest, url):
    with pytest.raises(UserError, match=f"^{url}/zips/val2017.zip: .*; is --base_url right") as raised:
        archives.download([archive], str(dest), url)
    assert "\n" not in str(raised.value)


def _has_free(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


def test_room_for_zip_and_pictures_is_asked_for_before_the_first_byte(server, archive, pictures, dest, monkeypatch):
    needed = archive.bytes + archive.unpacked_bytes
    _has_free(monkeypatch, needed - 1)
    with pytest.raises(UserError, match=f"--dest={dest}: .* needed, .* free; make room"):
        archives.download([archive], str(dest), server.url)
    assert server.asked == [] and list(dest.iterdir()) == []
    _has_free(monkeypatch, needed)
    archives.download([archive], str(dest), server.url)
    assert _whole(dest, pictures)


def test_no_room_is_asked_for_what_is_there_already(server, archive, pictures, dest, monkeypatch):
    server.cuts = [300_000, *[0] * 5]
    with pytest.raises(UserError, match="again and again"):
        archives.download([archive], str(dest), server.url)
    missing = archive.bytes - _part(dest).stat().st_size + archive.unpacked_bytes
    _has_free(monkeypatch, missing - 1)
    with pytest.raises(UserError, match="make room"):
        archives.download([archive], str(dest), server.url)
    _has_free(monkeypatch, missing)
    server.cuts = []
    archives.download([archive], str(dest), server.url)
    _has_free(monkeypatch, 0)
    archives.download([archive], str(dest), server.url)
    assert _whole(dest, pictures)


def test_what_an_interrupted_run_had_unpacked_does_not_take_room_from_the_next(
    server, archive, pictures, dest, monkeypatch
):
    extract, extracted = zipfile.ZipFile.extract, []

    def interrupted(file, entry, folder):
        if len(extracted) == 9:
            raise KeyboardInterrupt
        extracted.append(extract(file, entry, folder))

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            archives.download([archive], str(dest), server.url)
    assert len(list(dest.rglob("*.jpg"))) == 8
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: SimpleNamespace(
            free=archive.unpacked_bytes - sum(picture.stat().st_size for picture in dest.rglob("*.jpg"))
        ),
    )
    archives.download([archive], str(dest), server.url)
    assert len(server.asked) == 1 and _whole(dest, pictures)


@pytest.mark.parametrize("keep_zip", [False, True])
def test_room_is_asked_for_all_that_is_wanted_at_once(server, archive, dest, monkeypatch, keep_zip):
    other = _serve(server, {"texts/a.json": b"{}" * 400_000}, "texts", "texts.zip")
    # The first zip is gone when the second comes, unless it is kept.
    needed = archive.unpacked_bytes + other.unpacked_bytes + other.bytes + (archive.bytes if keep_zip else 0)
    _has_free(monkeypatch, needed - 1)
    with pytest.raises(UserError, match="make room"):
        archives.download([archive, other], str(dest), server.url, keep_zip)
    assert server.asked == []
    _has_free(monkeypatch, needed)
    archives.download([archive, other], str(dest), server.url, keep_zip)
    assert len(server.asked) == 2


def _disk_full(*unused, **also_unused):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_while_downloading_is_said_and_what_has_come_is_kept(
    server, archive, pictures, dest, monkeypatch
):
    class Full(io.FileIO):
        def write(self, data):
            return super().write(data) if self.tell() < 100_000 else _disk_full()

    with monkeypatch.context() as patch:
        patch.setattr(
            transfer,
            "open",
            lambda path, mode, **rest: Full(path, mode) if mode == "ab" else open(path, mode, **rest),
            raising=False,
        )
        with pytest.raises(UserError, match=f"--dest={dest}: no space left on the disk; make room"):
            archives.download([archive], str(dest), server.url)
    come = _part(dest).stat().st_size
    assert come >= 100_000
    archives.download([archive], str(dest), server.url)
    assert server.asked[-1].start == come and _whole(dest, pictures)


def test_a_disk_that_fills_up_while_unpacking_leaves_the_zip_alone_and_no_picture(
    server, archive, pictures, dest, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", _disk_full)  # what zipfile writes with
        with pytest.raises(UserError, match="no space left on the disk"):
            archives.download([archive], str(dest), server.url)
    assert [path.name for path in dest.iterdir()] == ["unfinished-val2017"]
    assert not list(dest.rglob("*.jpg"))
    archives.download([archive], str(dest), server.url)
    assert len(server.asked) == 1 and _whole(dest, pictures)


def test_killed_while_downloading_it_asks_for_nothing_but_the_rest(server, archive, pictures, dest):
    server.stalls_after = archive.bytes // 2
    command = _command(archive, f"--dest={dest}", f"--base_url={server.url}")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not (_part(dest).exists() and _part(dest).stat().st_size > archive.bytes // 4):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    server.stalls_after, come = None, _part(dest).stat().st_size
    done = _run(command)
    assert done.returncode == 0, done.stderr
    assert [(asked.start, asked.status) for asked in server.asked] == [(0, 200), (come, 206)]
    assert _whole(dest, pictures)


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
    archive = _serve(server, pictures)
    step, seen = 0, set()
    while True:
        step += 1
        dest = tmp_path / "coco" / str(step)
        # It begins with a part of a file that is no longer there: dropping that is a step as well.
        _part(dest).parent.mkdir(parents=True)
        _part(dest).write_bytes(b"old" * 10_000)
        _part(dest).with_suffix(".part.version").write_text('"old"')
        arguments = [f"--dest={dest}", f"--base_url={server.url}", *(["--keep_zip"] if keep_zip else [])]
        done = _run(_command(archive, *arguments, before=_KILLED_AT.format(step=step)))
        found = {f"val2017/{path.name}": path.read_bytes() for path in dest.glob("val2017/*")}
        assert found in ({}, {name: content for name, content in pictures.items() if content})
        come = _part(dest).stat().st_size if _part(dest).exists() else None
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
        assert _whole(dest, pictures), step
    assert seen == {"zip and no folder", "half unpacked", "folder and remains"}


@pytest.mark.parametrize(
    "name",
    ["../evil.jpg", "val2017/../../evil.jpg", "/{tmp_path}/evil.jpg", "evil.jpg", "test2017/evil.jpg", "val2017"],
)
def test_a_zip_that_would_write_outside_its_folder_is_refused_whole(server, pictures, dest, tmp_path, name):
    archive = _serve(server, pictures | {name.format(tmp_path=tmp_path): b"evil"})
    with pytest.raises(UserError, match="outside of val2017/; nothing was unpacked"):
        archives.download([archive], str(dest), server.url)
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_zip_with_other_than_the_expected_number_of_files_is_refused(server, archive, dest):
    with pytest.raises(UserError, match="12 files, 13 expected; nothing was unpacked"):
        archives.download([archive._replace(files=13)], str(dest), server.url)
    assert not list(dest.rglob("*.jpg"))


def test_an_entry_whose_crc_is_wrong_leaves_no_folder(server, pictures, dest):
    content = bytearray(_zipped(pictures))
    last = pictures["val2017/000000000011.jpg"]
    content[content.index(last) + 1000] ^= 1
    archive = _serve(server, pictures, content=bytes(content))
    with pytest.raises(UserError, match=r"val2017.zip: Bad CRC-32 for file .*000000000011.jpg'; delete it"):
        archives.download([archive], str(dest), server.url)
    assert not list(dest.rglob("*.jpg"))


def test_the_zip_is_kept_if_asked_for_and_used_without_being_asked(server, archive, pictures, dest):
    archives.download([archive], str(dest), server.url, keep_zip=True)
    kept = dest / "val2017.zip"
    assert kept.read_bytes() == server.files["/zips/val2017.zip"]
    shutil.rmtree(dest / "val2017")
    archives.download([archive], str(dest), server.url)
    assert len(server.asked) == 1
    assert kept.exists()  # whoever put it there may want it
    kept.unlink()
    assert _whole(dest, pictures)


def test_a_zip_of_the_users_that_is_cut_off_is_named_and_left_alone(server, archive, dest):
    dest.mkdir()
    (dest / "val2017.zip").write_bytes(server.files["/zips/val2017.zip"][:-5])
    with pytest.raises(UserError, match=f"{dest}/val2017.zip: SHA-256 .*, expected {archive.sha256}: cut off"):
        archives.download([archive], str(dest), server.url)
    assert (dest / "val2017.zip").stat().st_size == archive.bytes - 5
    assert server.asked == [] and [path.name for path in dest.iterdir()] == ["val2017.zip"]


def test_a_folder_that_is_not_whole_is_named_and_an_empty_one_is_filled(server, archive, pictures, dest):
    (dest / "val2017").mkdir(parents=True)
    (dest / "val2017" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=f"{dest}/val2017: 1 files, 12 expected: not the whole of it; move it away"):
        archives.download([archive], str(dest), server.url)
    assert server.asked == []
    (dest / "val2017" / "mine.jpg").unlink()
    archives.download([archive], str(dest), server.url)
    assert _whole(dest, pictures)


def test_two_processes_do_not_write_the_same_part(server, archive, dest):
    (dest / "unfinished-val2017").mkdir(parents=True)
    handle = os.open(dest / "unfinished-val2017", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="unfinished-val2017: another process is at work there"):
            archives.download([archive], str(dest), server.url)
    finally:
        os.close(handle)
    assert server.asked == []


def test_downloading_does_without_tensorflow_and_beam():
    code = "import sys, preprocessing.download; print({'tensorflow', 'apache_beam'} & set(sys.modules))"
    assert _run([sys.executable, "-c", code]).stdout.strip() == "set()"
