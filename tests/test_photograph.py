"""Photographs of digits: every kind that people bring comes as MNIST's makers would make it, or is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from told import assert_told

from benchmarks import drawn
from mixer_utils import load_pretrained
from mixer_utils.data import DataError, read_image
from mixer_utils.photograph import ink_on, read_digit, sheet_of, stages
from mixer_utils.training import hold_out

SIDE = drawn.SIDE


@pytest.fixture(scope="module")
def written(mnist):
    """Six validation digits, of six classes, that the model calls right as they are: {label: (28, 28)}."""
    _, validation = hold_out(mnist.train, 5000)
    return {label: validation.images[validation.labels == label][3, 0].numpy() for label in (0, 2, 4, 5, 7, 8)}


@pytest.fixture(scope="module")
def model():
    return load_pretrained("mnist")


def called(model, mnist, images):
    with torch.inference_mode():
        return model(mnist.normalize(torch.from_numpy(np.stack(images))[:, None])).argmax(1).tolist()


def saved(pixels, path):
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("kind", drawn.INK)
def test_a_digit_is_read_from_every_kind_of_picture(kind, written, model, mnist, tmp_path):
    images = []
    for label, digit in written.items():
        path = drawn.draw(kind, digit, tmp_path / str(label), np.random.default_rng(label))
        images.append(read_digit(path))
    assert called(model, mnist, images) == list(written)


def test_a_redrawn_digit_comes_back_as_it_was(written, tmp_path):
    for label, digit in written.items():
        path = drawn.draw("side light", digit, tmp_path / str(label), np.random.default_rng(0))
        assert np.corrcoef(read_digit(path).ravel(), digit.ravel())[0, 1] > 0.9, label


def assert_framed(frame, longer_side):
    """The digit has that longer side, and its centre of mass is the middle of the frame."""
    rows = np.flatnonzero(frame.max(1))
    columns = np.flatnonzero(frame.max(0))
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 == longer_side
    positions = np.arange(len(frame))
    middle = pytest.approx(len(frame) / 2, abs=0.6)
    assert frame.sum(1) @ positions / frame.sum() == middle
    assert frame.sum(0) @ positions / frame.sum() == middle


def test_the_longer_side_is_20_pixels_and_the_centre_of_mass_in_the_middle(written, tmp_path):
    path = drawn.draw("margins x3", written[7], tmp_path / "seven", np.random.default_rng(0))
    assert_framed(read_digit(path), longer_side=20)


def test_a_picture_of_28_by_28_is_left_alone_or_inverted(written, tmp_path):
    digit = written[5]
    np.testing.assert_array_equal(read_digit(saved(digit, tmp_path / "as it is.png")), digit)
    np.testing.assert_array_equal(read_digit(saved(255 - digit, tmp_path / "inverted.png")), digit)
    shown = read_image(tmp_path / "inverted.png", (1, 28, 28), "digit")
    assert shown.dtype == torch.uint8 and torch.equal(shown[0], torch.from_numpy(digit))


def test_a_model_of_larger_images_gets_the_same_frame_enlarged(written, tmp_path):
    path = drawn.draw("side light", written[2], tmp_path / "two", np.random.default_rng(0))
    frame = read_image(path, (1, 56, 56), "digit")[0].numpy()
    assert frame.shape == (56, 56)
    assert_framed(frame, longer_side=40)


def empty_pictures():
    noise = np.random.default_rng(0)
    nothing = np.zeros(drawn.SQUARE)
    return {
        "white": np.full((200, 300), 255, np.uint8),
        "black": np.zeros((200, 300), np.uint8),
        "grey, 28 x 28": np.full((28, 28), 128, np.uint8),
        "paper with noise": drawn.lit(nothing, noise=0.02, rng=noise),
        "paper in side light": drawn.lit(nothing, drawn.light_from("left", drawn.SQUARE), rng=noise),
        "paper with a vignette": drawn.lit(nothing, drawn.vignette(drawn.SQUARE), rng=noise),
        "dark paper": drawn.lit(nothing, paper=0.1, noise=0.02, rng=noise),
        "transparent": np.zeros((100, 100, 4), np.uint8),
    }


@pytest.mark.parametrize("name", empty_pictures())
def test_where_nothing_is_drawn_that_is_said(name, tmp_path):
    path = saved(empty_pictures()[name], tmp_path / "empty.png")
    with pytest.raises(DataError) as told:
        read_digit(path)
    assert_told(told.value, path, "nothing is drawn")


def test_a_picture_too_small_to_draw_in_is_refused(tmp_path):
    path = saved(np.eye(9, dtype=np.uint8) * 255, tmp_path / "small.png")
    with pytest.raises(DataError) as told:
        read_digit(path)
    assert_told(told.value, path, "9 x 9 pixels", "12 or more")


def test_several_digits_are_counted_and_none_is_guessed(written, tmp_path):
    beside = np.hstack([drawn.ink_of(written[label]) for label in (2, 7, 8)])
    path = saved(drawn.lit(beside), tmp_path / "three.png")
    with pytest.raises(DataError) as told:
        read_digit(path)
    assert_told(told.value, path, "3 digits", "cut out one")


def faint_beside_an_edge():
    """A grey stroke, and a black bar along the picture's edge, which is left out."""
    shade = np.full(drawn.SQUARE, 250, np.uint8)
    shade[:, :6] = 5
    shade[60:200, 130:142] = 116
    return shade


def test_a_stroke_much_fainter_than_the_picture_s_edge_is_told(tmp_path):
    path = saved(faint_beside_an_edge(), tmp_path / "faint.png")
    with pytest.raises(DataError) as told:
        read_digit(path)
    assert_told(told.value, path, "much fainter than what is at the picture's edge", "cut that off")


def test_a_digit_of_strokes_that_do_not_touch_is_one(mnist, model, tmp_path):
    ink = np.zeros(drawn.SQUARE)
    ink[60:80, 90:200] = 1  # the hat of a 5, and the rest of it further down
    ink[95:150, 90:110] = 1
    ink[140:155, 90:180] = 1
    ink[140:220, 170:190] = 1
    ink[205:220, 90:190] = 1
    path = saved(drawn.lit(ink), tmp_path / "five.png")
    assert called(model, mnist, [read_digit(path)]) == [5]


def test_the_stages_are_what_is_read(written, tmp_path):
    path = drawn.draw("sheet on a table", written[4], tmp_path / "four", np.random.default_rng(0))
    steps = stages(path)
    assert list(steps) == ["brightness", "sheet", "ink", "digit", "frame"]
    np.testing.assert_array_equal(steps["frame"], read_digit(path))
    assert steps["brightness"].min() < 0.3 < 0.6 < steps["sheet"][:5].min()  # the table is gone
    assert steps["digit"].shape[0] < steps["ink"].shape[0] < steps["brightness"].shape[0]


def test_without_a_table_the_picture_stays_whole(written, tmp_path):
    for kind in ("side light", "vignette", "chalk", "white on black", "flash"):
        brightness = stages(drawn.draw(kind, written[8], tmp_path / "eight", np.random.default_rng(0)))["brightness"]
        assert sheet_of(brightness) is brightness, kind


def test_ink_is_the_share_of_the_papers_light_that_is_missing():
    ink = np.zeros((200, 200))
    ink[60:140, 90:110] = 1
    for light in (1.0, 0.4, drawn.light_from("left", ink.shape)):
        found = ink_on(light * (0.9 - 0.6 * ink))
        assert found[100, 100] == pytest.approx(2 / 3, abs=0.06)
        assert found[:, :80].max() < 0.05
