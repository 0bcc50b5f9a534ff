"""A server of archives that breaks off, changes its mind, sends nonsense, or is merely slow; and what came of it."""

import errno
import hashlib
import io
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

from preprocessing.downloading import archives

LOST_IN_A_BREAK = 1 << 14  # bytes: what is on the way when a connection breaks need not be on the disk


class Server(ThreadingHTTPServer):
    """Serves `files`, path -> bytes. What it does wrong, and what it was asked for, are attributes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
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


class Handler(BaseHTTPRequestHandler):
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


def zipped(entries):
    """A zip of name -> bytes. Photographs are not compressed in COCO's own either."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def serve(server, entries, folder="val2017", path="zips/val2017.zip", content=None):
    """Puts a zip on the server and returns its description."""
    content = content or zipped(entries)
    server.files[f"/{path}"] = content
    server.etags[f"/{path}"] = '"first"'
    files = sum(not name.endswith("/") for name in entries)
    unpacked = sum(map(len, entries.values()))
    return archives.Archive(path, hashlib.sha256(content).hexdigest(), len(content), folder, files, unpacked)


def is_whole(dest, pictures):
    """Whether `dest` holds the pictures, every byte of them, and nothing else."""
    found = {str(path.relative_to(dest)): path.read_bytes() for path in dest.rglob("*") if path.is_file()}
    return found == {name: content for name, content in pictures.items() if not name.endswith("/")} and [
        path.name for path in dest.iterdir()
    ] == ["val2017"]


def part_of(dest):
    return dest / "unfinished-val2017" / "val2017.zip.part"


def download_command(archive, *arguments, before=""):
    """The command line of preprocessing.download, with `archive` in the place of COCO's val2017."""
    code = (
        "from preprocessing import download\nfrom preprocessing.downloading import archives\n"
        f"archives.COCO['coco-val2017'] = archives.Archive(*{tuple(archive)!r})\n"
        f"{before}\n"
        "download.run()"
    )
    return [sys.executable, "-c", code, "--dataset=coco-val2017", *arguments]


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def has_free(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


def disk_full(*unused, **also_unused):
    raise OSError(errno.ENOSPC, "No space left on device")
