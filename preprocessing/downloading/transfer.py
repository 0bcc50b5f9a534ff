"""Downloads one large file over HTTP, resuming as often as needed.

    transfer.fetch("http://images.cocodataset.org/zips/val2017.zip", Part("val2017.zip.part"), 815_585_330)

`Part` is what has been downloaded so far, on a local disk. A later attempt, in this process or another, requests only
the rest (`Range`), and only of the same version of the file (`If-Range`, with the ETag or date from the first
response). A file that was replaced in the meantime is downloaded from the start; two versions are never spliced. The
caller verifies the content, as it knows the checksum.

urllib3's `Retry` retries failed connections and temporary refusals (429, 5xx), with growing pauses. A body that breaks
off is resumed at once, as long as attempts make progress.
"""

import logging
import os
import re
from contextlib import suppress

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from common.command_line import UserError

_LOG = logging.getLogger(__name__)

_RETRIES = Retry(
    total=4,
    backoff_factor=1,  # 14 s in all
    status_forcelist=(429, 500, 502, 503, 504),
    raise_on_status=False,
    respect_retry_after_header=False,  # it may ask for an hour; better to fail with a message
)
_TIMEOUT = (10, 60)  # seconds: to connect; between bytes
_CHUNK = 1 << 14  # bytes; a broken connection loses less than this
_MAX_ATTEMPTS = 100
_MAX_FRUITLESS = 3  # consecutive attempts without progress


class Part:
    """A partially downloaded file, and the version of the server's file that it belongs to."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._version_path = f"{path}.version"

    @property
    def size(self) -> int:
        """Bytes downloaded so far."""
        try:
            return os.path.getsize(self.path)
        except FileNotFoundError:
            return 0

    @property
    def version(self) -> str:
        """The ETag or date to send as `If-Range`; empty if the server gave none."""
        try:
            with open(self._version_path, encoding="latin-1") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def begin(self, version: str) -> None:
        """Empties the part and prepares it for the bytes of `version`."""
        self.discard()  # first, so that the old version's bytes never coexist with the new version's name
        with open(f"{self._version_path}.tmp", "w", encoding="latin-1") as file:
            file.write(version)
        os.replace(f"{self._version_path}.tmp", self._version_path)

    def discard(self) -> None:
        """Deletes what has been downloaded."""
        for path in (self.path, self._version_path):
            with suppress(FileNotFoundError):
                os.remove(path)


def fetch(url: str, part: Part, size: int) -> None:
    """Downloads the rest of a part.

    Args:
      url: the file's URL.
      part: what has been downloaded, possibly nothing; grows to `size` bytes.
      size: size of the whole file, bytes.

    Raises:
      UserError: the server cannot be reached, does not have the file, has one of another size, or keeps breaking off.
        The part is kept for the next call.
      OSError: the part cannot be written.
    """
    farthest, fruitless = part.size, 0
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=_RETRIES))
        for _ in range(_MAX_ATTEMPTS):
            if part.size == size:
                return
            with _ask(session, url, part, size) as response:
                broken = _append(response, part, size, os.path.basename(url))
            fruitless = 0 if part.size > farthest else fruitless + 1
            farthest = max(farthest, part.size)
            if fruitless == _MAX_FRUITLESS:
                break
    if part.size < size:
        raise UserError(
            f"{url}: breaks off again and again, last after {part.size:,} of {size:,} bytes ({broken}); run the same "
            "command again later, it goes on from there"
        )


def _ask(session: requests.Session, url: str, part: Part, size: int) -> requests.Response:
    """Requests the missing bytes; empties the part if the response does not continue it."""
    if part.size and part.version:
        response = _get(session, url, {"Range": f"bytes={part.size}-", "If-Range": part.version}, part)
        if _continues(response, part, size):
            return response
        same = response.status_code == 200 and _version(response) == part.version
        _tell_anew(url, "the server sends whole files only" if same else "the file there is another one now", part)
        if response.status_code != 200:
            response.close()
            response = _get(session, url, {}, part)
    else:
        if part.size:
            _tell_anew(url, "the server does not say which version of the file it sends", part)
        response = _get(session, url, {}, part)
    length = response.headers.get("Content-Length")
    if response.status_code != 200 or length not in (None, str(size)):
        response.close()
        found = f"{length} bytes" if response.status_code == 200 else f"{response.status_code} {response.reason}"
        raise UserError(f"{url}: {found} where a file of {size} bytes was expected; is --base_url right?")
    part.begin(_version(response))
    return response


def _get(session: requests.Session, url: str, headers: dict[str, str], part: Part) -> requests.Response:
    kept = f"; {tqdm.format_sizeof(part.size, 'B')} have come and are kept" if part.size else ""
    try:
        # Content encoding would make it impossible to count the file's bytes.
        headers = {"Accept-Encoding": "identity", **headers}
        response = session.get(url, headers=headers, stream=True, timeout=_TIMEOUT)
    except requests.RequestException as error:
        raise UserError(f"{url}: {_reason(error)}; is --base_url right, and this machine online?{kept}") from None
    if response.status_code in (200, 206, 416):
        return response
    response.close()
    later = response.status_code in _RETRIES.status_forcelist
    remedy = "run the same command again later" if later else "is --base_url right?"
    raise UserError(f"{url}: {response.status_code} {response.reason}; {remedy}{kept}")


def _continues(response: requests.Response, part: Part, size: int) -> bool:
    """Returns whether the body continues the part, in the same version of the file.

    `If-Range` should make this check unnecessary, but some servers ignore it.
    """
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    return (
        response.status_code == 206
        and span is not None
        and int(span[1]) == part.size
        and span[2] in ("*", str(size))
        and _version(response) in ("", part.version)
    )


def _version(response: requests.Response) -> str:
    etag = response.headers.get("ETag", "")
    # `If-Range` does not accept weak ETags, which identify equivalent content, not identical bytes.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _append(response: requests.Response, part: Part, size: int, name: str) -> str:
    """Appends a body to the part, up to `size` bytes; returns why it ended."""
    bar = tqdm(total=size, initial=part.size, desc=name, unit="B", unit_scale=True)
    with bar, open(part.path, "ab") as file:
        try:
            for chunk in response.iter_content(_CHUNK):
                # A server that never stops sending must not fill the disk.
                bar.update(file.write(chunk[: size - bar.n]))
                if bar.n == size:
                    break
        except requests.RequestException as error:
            return _reason(error)
    return "the connection was closed"


def _reason(error: requests.RequestException) -> str:
    """Returns the innermost cause on one line; requests and urllib3 wrap it several times."""
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", None) or cause
    return " ".join(str(cause).split())


def _tell_anew(url: str, why: str, part: Part) -> None:
    _LOG.info("%s: %s; starting anew, without the %s that had come", url, why, tqdm.format_sizeof(part.size, "B"))
