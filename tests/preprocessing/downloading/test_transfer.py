"""The transfer, from a server that breaks off, changes its mind, or sends nonsense."""

import hashlib

import pytest

from common.command_line import UserError
from preprocessing.downloading import archives, transfer
from tests.preprocessing.downloading.archive_server import LOST_IN_A_BREAK, is_whole, part_of


@pytest.mark.parametrize("version", ['"first"', "Tue, 10 Jul 2018 20:13:26 GMT"])
def test_a_body_that_breaks_off_several_times_is_resumed_in_the_same_run(server, archive, pictures, dest, version):
    if version != '"first"':
        server.etags, server.dates = {}, {"/zips/val2017.zip": version}
    server.cuts = [150_000, 100_000, 1 << 16]
    archives.download([archive], str(dest), server.url)
    assert is_whole(dest, pictures)
    starts = [asked.start for asked in server.asked]
    assert [asked.status for asked in server.asked] == [200, 206, 206, 206]
    assert [asked.if_range for asked in server.asked] == [None, version, version, version]
    for start, (before, cut) in zip(starts[1:], zip(starts, [150_000, 100_000, 1 << 16])):
        assert before + cut - LOST_IN_A_BREAK < start <= before + cut


def test_breaks_that_bring_nothing_end_the_run_and_the_next_goes_on(server, archive, pictures, dest):
    server.cuts = [150_000, *[0] * 50]
    with pytest.raises(UserError, match=r"val2017.zip: breaks off again and again, last after 1\d\d,\d\d\d of"):
        archives.download([archive], str(dest), server.url)
    assert len(server.asked) < 10
    assert part_of(dest).read_bytes() == server.files["/zips/val2017.zip"][: part_of(dest).stat().st_size]
    come, server.cuts, server.asked = part_of(dest).stat().st_size, [], []
    archives.download([archive], str(dest), server.url)
    assert [(asked.start, asked.status) for asked in server.asked] == [(come, 206)]
    assert is_whole(dest, pictures)


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
    assert is_whole(dest, pictures)
    assert server.asked[0].start > 0 and server.asked[0].if_range == '"first"'
    assert server.asked[-1].status == 200
    assert "the file there is another one now; starting anew" in caplog.text


def test_a_server_that_has_no_ranges_is_asked_anew_and_that_is_said(server, archive, pictures, dest, caplog):
    server.ranges = False
    server.cuts = [300_000]
    archives.download([archive], str(dest), server.url)
    assert is_whole(dest, pictures)
    assert [asked.status for asked in server.asked] == [200, 200]
    assert "the server sends whole files only; starting anew" in caplog.text


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_or_a_date_nothing_is_resumed(server, archive, pictures, dest, caplog, etag):
    server.etags["/zips/val2017.zip"] = etag
    server.cuts = [300_000]
    archives.download([archive], str(dest), server.url)
    assert is_whole(dest, pictures)
    assert [asked.start for asked in server.asked] == [0, 0]
    assert "does not say which version of the file it sends; starting anew" in caplog.text


def test_a_server_that_never_stops_sending_does_not_fill_the_disk(server, archive, pictures, dest):
    server.lengths = False
    server.files["/zips/val2017.zip"] += b"more" * 100_000
    archives.download([archive], str(dest), server.url)
    assert is_whole(dest, pictures)


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
    come = part_of(dest).stat().st_size
    server.files["/zips/val2017.zip"], server.etags["/zips/val2017.zip"] = b"<html>Sign in", None
    server.conditions, server.cuts = knows_if_range, []
    with pytest.raises(UserError, match=f"13 bytes where a file of {archive.bytes} bytes was expected"):
        archives.download([archive], str(dest), server.url)
    assert part_of(dest).stat().st_size == come
    server.files["/zips/val2017.zip"], server.etags["/zips/val2017.zip"] = right, '"first"'
    archives.download([archive], str(dest), server.url)
    assert server.asked[-1].start == come and is_whole(dest, pictures)


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
    assert is_whole(dest, pictures)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no.such.host.invalid", "no-url"])
def test_a_server_that_is_not_there_is_one_line(archive, dest, url):
    with pytest.raises(UserError, match=f"^{url}/zips/val2017.zip: .*; is --base_url right") as raised:
        archives.download([archive], str(dest), url)
    assert "\n" not in str(raised.value)
