"""Every kind of picture file that people have, decoded to the right values. The files are made here, by code."""

import shutil
import struct
import sys
import types
import zlib

import numpy as np
import pytest
from PIL import Image
from told import assert_told

from mixer_utils import DataError, _pictures
from mixer_utils._pictures import decode, eight_bits, opaque, picture_endings, why_not


def png(path, width, height, depth, colour, rows):
    """Write a PNG of any kind, of 16 bits in colour too; each of the rows' bytes begins with its filter, 0."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def saved(path, image, **options):
    """Write an image, or the array of one, and give the path."""
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


def pixels(path):
    """The decoded picture's mode, and its values as lists."""
    image = decode(path)
    return image.mode, np.asarray(image).tolist()


def assert_told_of(path, *parts):
    with pytest.raises(DataError) as error:
        decode(path)
    assert_told(error.value, path, *parts)


# --- grey of more than 8 bits ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, values, expected", [
    (np.uint16, [0, 257, 32_896, 65_535], [0, 1, 128, 255]),
    (np.uint16, [0, 1024, 4095, 2048], [0, 64, 255, 128]),      # a scanner of 12 bits
    (np.uint16, [0, 0, 0, 0], [0, 0, 0, 0]),
    (np.int32, [0, 100, 200, 255], [0, 100, 200, 255]),
    (np.int32, [0, 2**24, 2**30, 2**31 - 1], [0, 2, 128, 255]),
    (np.int32, [-100, 0, 100, -100], [0, 128, 255, 0]),
    (np.float32, [0, 0.25, 0.5, 1], [0, 64, 128, 255]),
    (np.float32, [0, 0.25, 0.5, 0.5], [0, 64, 128, 128]),       # nowhere white
    (np.float32, [0, 0.25, 0.5, 1.02], [0, 64, 128, 255]),      # overshot where it was resized
    (np.float32, [0, 63.5, 128, 255], [0, 64, 128, 255]),
    (np.float32, [0, 63.5, 128, 260.3], [0, 64, 128, 255]),
    (np.float32, [-1, -0.5, 0, 1], [0, 64, 128, 255]),          # normalised as for a network
])  # fmt: skip
def test_deep_grey_comes_by_its_full_scale(dtype, values, expected, tmp_path):
    for ending in (".tif", ".png") if dtype == np.uint16 else (".tif",):  # PNG has no other deep numbers
        path = saved(tmp_path / f"deep{ending}", np.array([values], dtype))
        with Image.open(path) as image:
            assert image.mode in ("I;16", "I", "F")
        assert pixels(path) == ("L", [expected])


def test_a_tiff_with_pixels_that_are_no_numbers_is_told(tmp_path):
    for i, value in enumerate([np.nan, np.inf, -np.inf]):
        path = saved(tmp_path / f"{i}.tif", np.array([[0, value]], np.float32))
        assert_told_of(path, "infinite or not a number", "replace those first")


@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.uint32, np.int64, np.float64, bool])
def test_numbers_of_zero_and_one_are_black_and_white_whatever_their_type(dtype):
    result = eight_bits(np.array([[0, 1], [1, 0]], dtype))
    assert (result.dtype, result.tolist()) == (np.uint8, [[0, 255], [255, 0]])


def test_whole_numbers_a_little_above_a_full_scale_belong_to_the_next_one():
    assert eight_bits(np.array([0, 260])).tolist() == [0, 65]  # of 1023
    assert eight_bits(np.array([0, 2])).tolist() == [0, 2]  # of 255
    assert eight_bits(np.array([0, 2.0**40])).tolist() == [0, 255]  # beyond every scale


def test_one_negative_number_everywhere_is_black():
    assert eight_bits(np.full((2, 2), -3.0)).tolist() == [[0, 0], [0, 0]]


# --- 16 bits in colour, 1 bit, palettes, transparency, print -----------------------------------------------


DEEP = np.array([0, 0x1234, 0xFEDC, 0xFFFF], ">u2").tobytes()


@pytest.mark.parametrize("colour, width, expected", [
    (2, 1, ("RGB", [[[0x12, 0xFE, 0xFF]]])),
    (6, 1, ("RGBA", [[[0, 0x12, 0xFE, 0xFF]]])),
    (4, 2, None),
])  # fmt: skip
def test_colour_of_16_bits_keeps_the_upper_eight(colour, width, expected, tmp_path):
    rows = b"\0" + (DEEP[2:] if colour == 2 else DEEP)
    path = png(tmp_path / "deep.png", width, 1, 16, colour, rows)
    if expected is not None:
        assert pixels(path) == expected
    else:  # grey with transparency: as Pillow has it, LA or RGBA
        assert np.asarray(decode(path).convert("LA")).tolist() == [[[0, 0x12], [0xFE, 0xFF]]]


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".gif", ".pbm"])
def test_one_bit_is_black_and_white(ending, tmp_path):
    path = saved(tmp_path / f"bits{ending}", Image.fromarray(np.array([[True, False, True]])))
    assert np.asarray(opaque(decode(path)).convert("L")).tolist() == [[255, 0, 255]]


def test_ordinary_pictures_come_as_they_are(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    for mode, channels in {"L": 0, "RGB": slice(3), "RGBA": slice(4), "LA": slice(2)}.items():
        path = saved(tmp_path / f"{mode}.png", Image.fromarray(values[..., channels], mode))
        assert pixels(path) == (mode, values[..., channels].tolist())


def palette():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return image


RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]


def test_a_palette_gives_its_colours_and_its_transparency(tmp_path):
    assert pixels(saved(tmp_path / "a.png", palette())) == ("RGB", [[RED, GREEN, BLUE]])
    one = saved(tmp_path / "b.png", palette(), transparency=1)
    assert pixels(one) == ("RGBA", [[[*RED, 255], [*GREEN, 0], [*BLUE, 255]]])
    shades = saved(tmp_path / "c.png", palette(), transparency=bytes([255, 128, 0]))
    assert pixels(shades) == ("RGBA", [[[*RED, 255], [*GREEN, 128], [*BLUE, 0]]])
    assert pixels(saved(tmp_path / "d.gif", palette(), transparency=2))[1][0][2][3] == 0


@pytest.mark.parametrize("values, transparent, expected", [
    (np.array([[0, 100, 255]], np.uint8), 100, ("LA", [[[0, 255], [100, 0], [255, 255]]])),
    (np.array([[0, 100, 65_535]], np.uint16), 100, ("LA", [[[0, 255], [0, 0], [255, 255]]])),
    (np.array([[[9, 8, 7], [9, 8, 6]]], np.uint8), (9, 8, 7), ("RGBA", [[[9, 8, 7, 0], [9, 8, 6, 255]]])),
])  # fmt: skip
def test_the_one_colour_that_a_png_calls_transparent_is(values, transparent, expected, tmp_path):
    assert pixels(saved(tmp_path / "key.png", values, transparency=transparent)) == expected


@pytest.mark.parametrize("mode, values", [("LA", [[[200, 0], [0, 255], [0, 51]]]),
                                          ("RGBA", [[[9, 200, 0, 0], [0, 0, 0, 255], [0, 0, 0, 51]]])])  # fmt: skip
def test_what_is_transparent_takes_the_colour_of_the_paper_and_not_the_hidden_one(mode, values, tmp_path):
    image = decode(saved(tmp_path / "clear.png", Image.fromarray(np.array(values, np.uint8), mode)))
    white = opaque(image)
    assert (white.mode, np.asarray(white).tolist()) == ("RGB", [[[255] * 3, [0] * 3, [204] * 3]])  # 204: 4/5 of white
    red = opaque(image, paper="red")
    assert np.asarray(red).tolist() == [[RED, [0, 0, 0], [204, 0, 0]]]


def test_grey_without_transparency_is_opaque_as_it_is():
    assert opaque(Image.new("L", (1, 1), 77)).getpixel((0, 0)) == (77, 77, 77)


@pytest.mark.parametrize("ending", [".jpg", ".tif"])
def test_the_inks_of_print_become_light(ending, tmp_path):
    for inks, light in {(0, 255, 255, 0): RED, (255, 255, 0, 0): BLUE, (0, 0, 0, 0): [255] * 3, (0, 0, 0, 255): [0] * 3,
                        (0, 0, 0, 100): [155] * 3}.items():  # fmt: skip
        mode, values = pixels(saved(tmp_path / f"print{ending}", Image.new("CMYK", (16, 16), inks)))
        assert mode == "RGB"
        np.testing.assert_allclose(values, np.broadcast_to(light, (16, 16, 3)), atol=2)


# --- upright, and the first frame --------------------------------------------------------------------------

# How a camera was held: what is done to the stored picture so that it is seen upright (EXIF's tag 274).
UPRIGHT = {
    0: lambda a: a,  # no such orientation: as it is
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[:, ::-1],
    7: lambda a: a.T[::-1, ::-1],
    8: lambda a: a.T[::-1],
    9: lambda a: a,
}


def camera(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending, depth", [(".jpg", 8), (".png", 8), (".png", 16), (".tif", 8), (".tif", 16),
                                           (".webp", 8), (".avif", 8)])  # fmt: skip
def test_a_picture_is_turned_as_its_exif_data_say(orientation, ending, depth, tmp_path):
    if ending not in picture_endings():
        pytest.skip(f"Pillow reads no {ending} here")
    stored = np.kron(np.array([[10, 90, 250], [170, 50, 210]]), np.ones((16, 16))).astype(np.uint8)
    image = Image.fromarray(stored if depth == 8 else stored.astype(np.uint16) * 257)
    path = saved(tmp_path / f"turned{ending}", image, exif=camera(orientation), quality=100)
    found = np.asarray(decode(path).convert("L")).astype(int)
    expected = UPRIGHT[orientation](stored)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 6  # what JPEG, WebP and AVIF lose


@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", b"Exif\0\0"])
def test_exif_data_that_make_no_sense_are_passed_over(exif, tmp_path):
    path = saved(tmp_path / "odd.jpg", Image.new("L", (24, 16), 100), exif=exif)
    assert decode(path).size == (24, 16) and decode(path).getpixel((3, 3)) == 100


def test_a_picture_is_turned_though_other_exif_data_make_no_sense(tmp_path):
    exif = camera(6)
    exif[271] = "maker"
    odd = exif.tobytes().replace(b"\x01\x0f\0\2", b"\x01\x03\0\2")  # words where a number is due
    path = saved(tmp_path / "odd.jpg", Image.new("L", (24, 16), 100), exif=odd)
    assert odd != exif.tobytes() and decode(path).size == (16, 24)


@pytest.mark.parametrize("ending", [".gif", ".png", ".webp", ".tif"])
def test_of_several_frames_the_first_one_is_taken(ending, tmp_path):
    first, *others = (Image.new("RGB", (8, 8), tuple(colour)) for colour in (RED, GREEN, BLUE))
    path = saved(tmp_path / f"film{ending}", first, save_all=True, append_images=others, lossless=True)
    with Image.open(path) as film:
        assert film.n_frames == 3
    assert opaque(decode(path)).getpixel((4, 4)) == tuple(RED)


# --- too large, damaged, no picture ------------------------------------------------------------------------


def test_a_picture_of_20_000_pixels_each_way_is_told(tmp_path):
    row = b"\0" + b"\xff" * 2500
    path = png(tmp_path / "large.png", 20_000, 20_000, 1, 0, row * 20_000)
    assert_told_of(path, "178,956,970 pixels", "make the picture smaller")


def test_a_picture_of_ninety_million_pixels_is_read_without_a_warning(tmp_path):
    row = b"\0" + b"\xff" * 1250
    path = png(tmp_path / "large.png", 10_000, 9_000, 1, 0, row * 9_000)
    assert decode(path).size == (10_000, 9_000)  # and a warning would be an error here


def test_a_picture_that_does_not_fit_into_memory_is_told(tmp_path, monkeypatch):
    path = saved(tmp_path / "large.tif", np.zeros((2, 2), np.float32))

    def full(values):
        raise MemoryError

    monkeypatch.setattr(_pictures, "eight_bits", full)
    assert_told_of(path, "does not fit into memory", "make the picture smaller")


@pytest.fixture
def photo():
    values = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(values).resize((60, 60))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".gif", ".webp", ".bmp"])
def test_half_a_file_is_told(ending, photo, tmp_path):
    path = saved(tmp_path / f"half{ending}", photo)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert_told_of(path, "damaged, or not a picture", "save it anew as PNG or JPEG")


def test_a_sound_tiff_of_a_kind_that_pillow_does_not_read_is_not_called_damaged_alone(tmp_path):
    path = saved(tmp_path / "deep.tif", Image.new("RGB", (4, 4)))
    whole = path.read_bytes()
    uncompressed = struct.pack("<HHIH", 259, 3, 1, 1)
    assert uncompressed in whole
    path.write_bytes(whole.replace(uncompressed, struct.pack("<HHIH", 259, 3, 1, 119)))  # a way that nobody packs by
    assert_told_of(path, "not a picture that Pillow reads")


def test_a_byte_flipped_anywhere_in_a_png_is_told(photo, tmp_path):
    photo = photo.resize((9, 9))
    path = saved(tmp_path / "flipped.png", photo)
    whole = path.read_bytes()
    end = len(whole) - 12  # of the pixels; what follows says "the end" and has no checksum that Pillow looks at
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        if place < end:
            assert_told_of(path, "damaged, or not a picture")
        else:
            assert place in range(end + 4, end + 8) or decode(path).tobytes() == photo.tobytes()


@pytest.mark.parametrize("content, told", [
    (b"", ("the file is empty", "copy it again")),
    (b"a,b\n1,2\n", ("damaged, or not a picture", "save it anew")),
    (b"<!DOCTYPE html><html>", ("it is a web page", "download the picture itself")),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ("it is an SVG drawing", "export it as PNG")),
    (b"%PDF-1.7\n", ("it is a PDF", "export its page as PNG")),
    (b"version https://git-lfs.github.com/spec/v1\n", ("Git LFS", "`git lfs pull`")),
    (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", ("damaged, or not a picture", "save it anew")),  # a video
])  # fmt: skip
def test_what_is_only_called_a_picture_is_told_for_what_it_is(content, told, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    assert_told_of(path, "cannot be read", *told)


@pytest.mark.parametrize("brand, ending, told", [
    (b"heic", ".heic", ("HEIC is not read here", "`pip install pillow-heif`", "JPEG")),
    (b"avif", ".avif", ("AVIF is not read here", "`pip install -U pillow`", "JPEG")),
])  # fmt: skip
def test_where_the_pictures_of_phones_cannot_be_read_what_to_install_is_told(
    brand, ending, told, tmp_path, monkeypatch
):
    path = tmp_path / "IMG_0001.JPG"  # whatever its name
    path.write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0")
    Image.init()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as where it is not installed
    monkeypatch.setattr(Image, "OPEN", {name: how for name, how in Image.OPEN.items() if name != "HEIF"})
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    readable = {name: kind for name, kind in Image.EXTENSION.items() if name != ending}
    monkeypatch.setattr(Image, "registered_extensions", lambda: readable)
    assert_told_of(path, *told)
    monkeypatch.setattr(Image, "registered_extensions", lambda: readable | {ending: "HEIF"})
    assert_told_of(path, "damaged, or not a picture")  # it could be read, were it whole


def test_where_pillow_heif_is_installed_it_is_asked(tmp_path, monkeypatch):
    asked = []
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    fake = types.SimpleNamespace(register_heif_opener=lambda: asked.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    monkeypatch.setattr(Image, "OPEN", {name: how for name, how in Image.OPEN.items() if name != "HEIF"})
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    with pytest.raises(DataError):
        decode(path)
    assert asked


def test_a_real_heic_file_is_read_where_pillow_heif_is_installed(tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    path = saved(tmp_path / "photo.heic", Image.new("RGB", (64, 48), (250, 10, 90)), quality=95)
    image = decode(path)
    assert (image.mode, image.size) == ("RGB", (64, 48))
    np.testing.assert_allclose(image.getpixel((9, 9)), (250, 10, 90), atol=4)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    assert_told_of(tmp_path / "none.png", "there is no such file", "check the path")
    assert_told_of(tmp_path, "it is a folder", "give the path of a picture")


def test_a_file_that_may_not_be_read_is_told_with_the_systems_reason(tmp_path, monkeypatch):
    path = saved(tmp_path / "mine.png", Image.new("L", (1, 1)))

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refused)
    assert why_not(path).startswith("Permission denied: ")


def test_what_pillow_reads_beside_pictures_is_none():
    endings = picture_endings()
    assert {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"} <= endings
    assert endings & {".pdf", ".eps", ".ps", ".mpg", ".mpeg", ".h5", ".hdf", ".wmf", ".txt", ".csv"} == set()


def test_a_decoded_picture_stays_when_its_file_goes(photo, tmp_path):
    path = saved(tmp_path / "photo.png", photo)
    image = decode(path)
    shutil.move(path, tmp_path / "elsewhere.png")
    assert image.crop((0, 0, 30, 30)).tobytes() == photo.crop((0, 0, 30, 30)).tobytes()
