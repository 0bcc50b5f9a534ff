"""What people wrote into a photo is still there after it was restored; checked with Pillow and on the bytes."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from serving.restoring import photo as photos
from tests.serving.conftest import decoded, encoded

XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:rights="Ada"/></x:xmpmeta>'
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation=None):
    tags = Image.Exif()
    tags[ExifTags.Base.Copyright] = "Ada Lovelace"
    tags[ExifTags.Base.Make] = "Camera"
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"opaque \x00\xff maker note"
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    if orientation:
        tags[ExifTags.Base.Orientation] = orientation
    return tags.tobytes()


@pytest.fixture
def crop(photo):
    return photo[30:121, 150:283]


@pytest.fixture
def restored_as_sent(tmp_path):
    """Reads a file, answers with exactly the pixels that were sent, and writes the result."""

    def restore(data, name="photo"):
        (tmp_path / name).write_bytes(data)
        photo = photos.read(tmp_path / name)
        sent = Image.open(io.BytesIO(photo.request))
        return photo, photos.write(photo, encoded(np.asarray(sent.convert("RGBA" if sent.mode == "RGBA" else "RGB"))))

    return restore


def test_a_jpeg_is_sent_as_it_is_and_keeps_its_metadata(restored_as_sent, crop):
    iptc = b"\xff\xed\x00\x12Photoshop 3.0\x00IP"
    original = encoded(
        crop, "JPEG", quality=92, exif=exif(), icc_profile=PROFILE, xmp=XMP, comment=b"a comment", dpi=(300, 300)
    )
    original = original[:20] + iptc + original[20:]
    photo, result = restored_as_sent(original)
    assert photo.request == original
    before, after = Image.open(io.BytesIO(original)), Image.open(io.BytesIO(result))
    for key in ("exif", "icc_profile", "xmp", "comment", "dpi"):
        assert after.info[key] == before.info[key], key
    assert iptc in result
    assert after.getexif()[ExifTags.Base.Copyright] == "Ada Lovelace"
    assert np.abs(np.asarray(after).astype(int) - np.asarray(before)).mean() < 1.5
    assert [component[1:3] for component in after.layer] == [(1, 1)] * 3, "4:4:4"
    Image.open(io.BytesIO(result)).load()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_a_turned_photo_is_restored_upright(restored_as_sent, crop, image_format, orientation):
    original = encoded(crop, image_format, exif=exif(orientation))
    photo, result = restored_as_sent(original)
    turn = {
        2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: np.rot90,
    }[orientation]  # fmt: skip
    np.testing.assert_array_equal(decoded(photo.request, "RGB"), turn(decoded(original)))
    after = Image.open(io.BytesIO(result))
    assert after.getexif()[ExifTags.Base.Orientation] == 1
    maker_note = after.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote]
    assert maker_note == b"opaque \x00\xff maker note"


def test_an_orientation_that_only_xmp_has_turns_nothing(restored_as_sent, crop):
    original = encoded(crop, "JPEG", xmp=XMP)
    photo, result = restored_as_sent(original)
    assert photo.request == original and Image.open(io.BytesIO(result)).info["xmp"] == XMP


def test_xmp_says_upright_too(restored_as_sent, crop):
    _, result = restored_as_sent(encoded(crop, "JPEG", exif=exif(6), xmp=XMP))
    assert Image.open(io.BytesIO(result)).info["xmp"] == XMP.replace(b'Orientation="6"', b'Orientation="1"')


def test_a_png_keeps_text_profile_and_alpha(restored_as_sent, crop):
    info = PngImagePlugin.PngInfo()
    info.add_text("Copyright", "Ada Lovelace")
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    rgba = np.dstack([crop, crop[..., 0]])
    original = encoded(rgba, "PNG", pnginfo=info, icc_profile=PROFILE, exif=exif(), dpi=(72, 72))
    photo, result = restored_as_sent(original)
    assert photo.request == original
    after = Image.open(io.BytesIO(result))
    after.load()
    before = Image.open(io.BytesIO(original))
    before.load()
    assert after.text == before.text
    for key in ("icc_profile", "exif", "dpi"):
        assert after.info[key] == before.info[key], key
    np.testing.assert_array_equal(np.asarray(after), rgba)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF"])
def test_a_grey_photo_stays_grey(restored_as_sent, crop, image_format):
    _, result = restored_as_sent(encoded(crop, image_format, mode="L"))
    assert Image.open(io.BytesIO(result)).mode == "L"


@pytest.mark.parametrize("image_format", ["BMP", "TIFF"])
def test_other_lossless_formats_are_sent_as_png_and_come_back_as_they_were(restored_as_sent, crop, image_format):
    photo, result = restored_as_sent(encoded(crop, image_format))
    assert photo.request.startswith(b"\x89PNG")
    assert Image.open(io.BytesIO(result)).format == image_format
    np.testing.assert_array_equal(decoded(result), crop)


def test_a_webp_keeps_alpha_and_metadata(restored_as_sent, crop):
    rgba = np.dstack([crop, np.full(crop.shape[:2], 99, np.uint8)])
    _, result = restored_as_sent(encoded(rgba, "WEBP", exif=exif(3), icc_profile=PROFILE, xmp=XMP))
    after = Image.open(io.BytesIO(result))
    assert after.format == "WEBP" and after.info["icc_profile"] == PROFILE
    assert after.getexif()[ExifTags.Base.Orientation] == 1
    assert after.getexif()[ExifTags.Base.Copyright] == "Ada Lovelace"
    assert (np.asarray(after)[..., 3] == 99).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_heic_comes_back_as_one_with_its_metadata(restored_as_sent, crop, mode):
    original = encoded(crop, "HEIF", mode, quality=-1, exif=exif(), icc_profile=PROFILE, xmp=XMP)
    _, result = restored_as_sent(original, "photo.heic")
    before, after = Image.open(io.BytesIO(original)), Image.open(io.BytesIO(result))
    assert (after.format, after.mode, after.size) == ("HEIF", mode, before.size)
    assert after.getexif()[ExifTags.Base.Copyright] == "Ada Lovelace"
    for key in ("icc_profile", "xmp"):
        assert after.info[key] == before.info[key], key
    assert np.abs(np.asarray(after).astype(int) - np.asarray(before)).mean() < 1.5


def test_a_heic_without_the_extra_is_refused_with_the_remedy(tmp_path, crop, monkeypatch):
    (tmp_path / "photo.heic").write_bytes(encoded(crop, "HEIF"))
    for registered in (Image.OPEN, Image.MIME):
        monkeypatch.delitem(registered, "HEIF", raising=False)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    with pytest.raises(photos.UnreadablePhoto, match=r"a HEIC; pip install 'cleanplate\[heic\]'"):
        photos.read(tmp_path / "photo.heic")


def test_a_tiff_keeps_what_people_wrote(restored_as_sent, crop):
    _, result = restored_as_sent(encoded(crop, "TIFF", exif=exif(), icc_profile=PROFILE, dpi=(300, 300)))
    after = Image.open(io.BytesIO(result))
    assert after.getexif()[ExifTags.Base.Copyright] == "Ada Lovelace"
    assert after.getexif().get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert after.info["icc_profile"] == PROFILE and after.info["dpi"] == (300, 300)


def test_a_colour_that_a_png_declares_transparent_stays_transparent(restored_as_sent, crop):
    crop = crop.copy()
    crop[:10] = (1, 2, 3)
    _, result = restored_as_sent(encoded(crop, "PNG", transparency=(1, 2, 3)))
    alpha = decoded(result, "RGBA")[..., 3]
    assert (alpha[:10] == 0).all() and (alpha[10:] == 255).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda crop: b"", "not a JPEG"),
        (lambda crop: b"text", "not a JPEG"),
        (lambda crop: encoded(crop, "JPEG", mode="CMYK"), "CMYK"),
        (lambda crop: encoded(crop, "PPM"), "a PPM; convert"),
        (lambda crop: encoded(crop[..., 0].astype(np.uint16), "TIFF"), "I;16 pixels"),
        (lambda crop: encoded(crop, "GIF", save_all=True, append_images=[Image.new("RGB", (133, 91))]), "2 frames"),
        (lambda crop: encoded(crop, "TIFF")[:5000], ""),
    ],
    ids=["empty", "text", "cmyk", "ppm", "16-bit tiff", "animation", "truncated"],
)
def test_what_would_lose_something_is_refused_with_a_reason(tmp_path, crop, data, reason):
    (tmp_path / "photo").write_bytes(data(crop))
    with pytest.raises(photos.UnreadablePhoto) as error:
        photos.read(tmp_path / "photo")
    assert reason in str(error.value) and "\n" not in str(error.value) and str(error.value)


def test_an_answer_of_another_size_is_not_written(tmp_path, crop):
    (tmp_path / "photo").write_bytes(encoded(crop))
    with pytest.raises(ValueError, match="came back"):
        photos.write(photos.read(tmp_path / "photo"), encoded(crop[:5]))
