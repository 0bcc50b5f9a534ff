"""Pictures that are turned away: really broken files, each with its reason."""

import io
import json
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from common.command_line import UserError
from preprocessing.conversion.checks import Rejected, check_picture


@pytest.fixture(scope="module")
def photograph(photographs):
    with Image.open(photographs[0]) as image:
        return image.convert("RGB")


def _saved(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _sixteen_bit_rgb_png():
    pixels = np.random.default_rng(0).integers(0, 65535, (20, 30, 3), np.uint16)
    return tf.io.encode_png(pixels).numpy()


def _bmp_of_16_bits():
    row = struct.pack("<4H", 0x7C00, 0x03E0, 0x001F, 0x7FFF)
    header = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 16, 0, 16, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 16, 0, 0, 54) + header + row * 2


def _scrambled_png(photograph):
    data = bytearray(_saved(photograph, "PNG"))
    begin = data.index(b"IDAT") + 2000
    data[begin : begin + 400] = bytes(400)
    return bytes(data)


_BROKEN = {
    "empty": lambda p: b"",
    "not_an_image": lambda p: b"<html>404 not found</html>",
    "unsupported_format": lambda p: _saved(p, "TIFF"),
    "truncated": lambda p: _saved(p, "JPEG")[:-500],
    "cmyk": lambda p: _saved(p.convert("CMYK"), "JPEG"),
    "animated": lambda p: _saved(p, "GIF", save_all=True, append_images=[p.rotate(90)]),
    "alpha": lambda p: _saved(p.convert("RGBA"), "PNG"),
    "palette": lambda p: _saved(p.quantize(64), "PNG"),
    "unsupported_mode": lambda p: _saved(p.convert("1"), "PNG"),
    "sixteen_bit": lambda p: _sixteen_bit_rgb_png(),
}


@pytest.mark.parametrize("check", ["decode", "header"])
@pytest.mark.parametrize("reason", _BROKEN)
def test_a_broken_picture_is_rejected_with_its_reason(photograph, reason, check):
    with pytest.raises(Rejected) as raised:
        check_picture(_BROKEN[reason](photograph), check)
    assert raised.value.reason == reason
    assert raised.value.detail


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: _saved(p, "JPEG")[:120], "truncated"),
        (lambda p: _saved(p, "PNG")[:-3000], "truncated"),
        (lambda p: _saved(p, "WEBP"), "unsupported_format"),
        (lambda p: _bmp_of_16_bits(), "unsupported_format"),
        (lambda p: _saved(p.convert("LA"), "PNG"), "alpha"),
        (lambda p: _saved(p.convert("I;16"), "PNG"), "sixteen_bit"),
        (lambda p: _saved(p, "PNG", save_all=True, append_images=[p.rotate(90)]), "animated"),
    ],
)
def test_further_kinds_of_broken_pictures_are_told_apart(photograph, make, reason):
    with pytest.raises(Rejected) as raised:
        check_picture(make(photograph))
    assert raised.value.reason == reason


def test_damage_within_the_pixels_is_found_by_decoding_alone(photograph):
    data = _scrambled_png(photograph)
    assert check_picture(data, "header").format == "png"
    with pytest.raises(Rejected) as raised:
        check_picture(data, "decode")
    assert raised.value.reason == "corrupt"


def test_a_picture_of_absurd_size_is_rejected_without_decoding_it(photograph):
    data = bytearray(_saved(photograph, "BMP"))
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    with pytest.raises(Rejected) as raised:
        check_picture(bytes(data))
    assert raised.value.reason == "too_large"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda p: _saved(p, "JPEG"), "jpeg"),
        (lambda p: _saved(p.convert("L"), "JPEG"), "jpeg"),
        (lambda p: _saved(p, "JPEG", progressive=True), "jpeg"),
        (lambda p: _saved(p, "JPEG") + b"appended by a careless program", "jpeg"),
        (lambda p: _saved(p, "MPO", save_all=True, append_images=[p.rotate(90)]), "jpeg"),
        (lambda p: _saved(p, "PNG"), "png"),
        (lambda p: _saved(p.convert("L"), "PNG"), "png"),
        (lambda p: _saved(p, "BMP"), "bmp"),
        (lambda p: _saved(p, "GIF"), "gif"),
    ],
)
def test_what_is_accepted_is_decoded_to_rgb_by_tensorflow(photograph, make, name):
    data = make(photograph)
    for check in ("decode", "header"):
        assert check_picture(data, check, photograph.size) == (name, *photograph.size)
    decoded = tf.io.decode_image(data, channels=3, expand_animations=False)
    assert decoded.shape == (photograph.size[1], photograph.size[0], 3)


def _rejected(folder):
    lines = (folder / "rejected.jsonl").read_text().splitlines()
    return {line["filename"]: (line["reason"], line["detail"]) for line in map(json.loads, lines)}


def test_rejects_are_listed_counted_and_left_out(coco_folder, run_convert, photograph):
    for reason, make in _BROKEN.items():
        (coco_folder.images / f"broken_{reason}").write_bytes(make(photograph))
    coco_folder.json["images"][2]["width"] += 1
    coco_folder.json["images"].append({"id": 5, "file_name": "gone.jpg", "width": 1, "height": 1})
    coco_folder.instances.write_text(json.dumps(coco_folder.json))

    info = run_convert(captions=None, split_sizes="train=1.0", max_rejected_fraction=0.6)

    rejected = _rejected(coco_folder.output)
    assert list(rejected) == sorted(rejected)
    expected = {f"broken_{reason}": reason for reason in _BROKEN}
    expected |= {"gone.jpg": "missing", coco_folder.json["images"][2]["file_name"]: "size_mismatch"}
    assert {name: reason for name, (reason, _) in rejected.items()} == expected
    assert info["rejected"] == {"images": 12, "by_reason": {reason: 1 for reason in sorted(expected.values())}}
    assert info["splits"]["train"]["images"] == 11


def test_of_equal_files_one_is_kept_whatever_shards_they_fall_into(coco_folder, run_convert, shard_bytes):
    original = (coco_folder.images / "000000000005.jpg").read_bytes()
    for index in range(6):
        (coco_folder.images / f"copy{index}.jpg").write_bytes(original)
    info = run_convert(annotations=None, captions=None, split_sizes="train=10,test=8", max_rejected_fraction=0.5)

    rejected = _rejected(coco_folder.output)
    same = {f"copy{index}.jpg" for index in range(6)} | {"000000000005.jpg"}
    (kept,) = same - rejected.keys()
    assert rejected == {name: ("duplicate", f"the same bytes as {kept}") for name in same - {kept}}
    assert sum(split["images"] for split in info["splits"].values()) == 12
    assert b"".join(shard_bytes(coco_folder.output).values()).count(original) == 1


@pytest.mark.parametrize("progressive", [False, True])
def test_a_damaged_jpeg_is_rejected_exactly_when_decoding_it_in_full_fails(photograph, progressive):
    intact = _saved(photograph.resize((160, 120)), "JPEG", progressive=progressive)
    rng = np.random.default_rng(1)
    verdicts = set()
    for _ in range(150):
        data = bytearray(intact)
        where = int(rng.integers(2, len(data)))
        kind = rng.integers(4)
        if kind == 0:
            del data[where:]
        elif kind == 1:
            data[where] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[where] = 0xFF
        else:
            data[where : where + 40] = bytes(len(data[where : where + 40]))
        try:
            with Image.open(io.BytesIO(bytes(data))) as image:
                image.load()
            good = bytes(data).rstrip(b"\0").endswith(b"\xff\xd9")  # a lost end marker is our own reason
        except Exception:
            good = False
        try:
            check_picture(bytes(data))
            accepted = True
        except Rejected:
            accepted = False
        assert accepted == good, (kind, where)
        verdicts.add(accepted)
    assert verdicts == {True, False}


def test_too_many_rejects_end_the_job_and_leave_only_their_list(coco_folder, run_convert):
    for index in range(3):
        (coco_folder.images / f"empty{index}.jpg").write_bytes(b"")
    (coco_folder.images / "text.jpg").write_bytes(b"text")
    arguments = {"annotations": None, "captions": None, "split_sizes": "train=1.0"}
    with pytest.raises(UserError) as raised:
        run_convert(max_rejected_fraction=0.2, **arguments)
    message = str(raised.value)
    assert "4 of 16 pictures rejected (25.0%, --max_rejected_fraction=0.2)" in message
    assert "3 empty (empty0.jpg, …), 1 not_an_image (text.jpg)" in message
    assert str(coco_folder.output / "rejected.jsonl") in message
    assert [path.name for path in coco_folder.output.iterdir()] == ["rejected.jsonl"]
    assert len(_rejected(coco_folder.output)) == 4

    assert run_convert(max_rejected_fraction=0.25, **arguments)["rejected"]["images"] == 4


def test_missing_pictures_end_the_job_before_any_is_read(coco_folder, run_convert, monkeypatch):
    monkeypatch.setattr("preprocessing.conversion.pipeline.run", lambda *unused: pytest.fail("the job was started"))
    (coco_folder.images / "000000000004.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 11 pictures rejected .*1 missing \(000000000004.jpg\)"):
        run_convert(split_sizes="train=10")
    assert _rejected(coco_folder.output)["000000000004.jpg"][0] == "missing"


def test_hidden_files_are_passed_over_and_counted(coco_folder, run_convert, caplog):
    (coco_folder.images / ".DS_Store").write_bytes(b"\0")
    assert run_convert()["rejected"]["images"] == 0
    assert "1 hidden files passed over" in caplog.text
