import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from mixer_utils import History
from mixer_utils.evaluation import calibration
from mixer_utils.plotting import (
    Picture,
    as_picture,
    figure,
    plot_calibration,
    plot_confusion_matrix,
    plot_history,
    plot_images,
    plot_maps,
    plot_matrix,
    plot_per_class,
)


def lines(ax):
    """label -> (x, y) of the lines of an axes."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()}


def cells(ax, shape):
    """The colours and the texts of a heat map's cells."""
    (mesh,) = ax.collections
    texts = np.array([text.get_text() for text in ax.texts])
    return np.asarray(mesh.get_array()).reshape(shape), texts.reshape(shape) if len(texts) else None


# --- pictures and their alt text ---------------------------------------------------------------------------


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_there_is_no_figure_without_alt_text(alt):
    with pytest.raises(ValueError, match="^A figure needs alt text: one sentence "):
        figure(alt=alt)
    with pytest.raises(ValueError, match="^A figure needs alt text"):
        plot_maps(np.zeros((1, 2, 2)), alt=alt)


def test_a_picture_shows_itself_as_an_opaque_png_with_its_alt_text():
    picture, ax = figure(size=(3, 2), alt="A line that rises.")
    ax.plot([1, 2])
    data, metadata = picture._repr_mimebundle_()
    assert data["text/plain"] == "A line that rises."
    assert metadata == {"image/png": {"alt": "A line that rises."}}
    pixels = np.asarray(Image.open(io.BytesIO(data["image/png"])).convert("RGBA"))
    assert pixels.shape == (192, 288, 4)  # 96 dots an inch
    assert (pixels[0, 0] == 255).all() and (pixels[..., 3] == 255).all()
    assert (pixels[..., :3] < 200).any()  # the line


def test_nothing_is_left_open_in_pyplot():
    before = plt.get_fignums()
    plot_matrix(np.eye(2), title="t")
    figure(2, 3, alt="Six axes.")
    assert plt.get_fignums() == before


def test_a_figure_gives_as_many_axes_as_are_asked_for():
    picture, ax = figure(alt="One.")
    assert isinstance(picture, Picture) and ax.get_figure() is picture
    assert figure(2, 3, alt="Six.", sharex=True)[1].shape == (2, 3)


@pytest.mark.parametrize("shape, expected", [((1, 4, 5), (4, 5)), ((3, 4, 5), (4, 5, 3)), ((4, 5), (4, 5))])
def test_an_image_is_turned_as_matplotlib_wants_it(shape, expected):
    image = torch.arange(int(np.prod(shape))).reshape(shape)
    turned = as_picture(image)
    assert turned.shape == expected
    channel = turned[..., 1] if len(expected) == 3 else turned
    np.testing.assert_array_equal(channel, image[1] if shape[0] == 3 else image.reshape(4, 5))


# --- grids -------------------------------------------------------------------------------------------------


def test_images_are_drawn_as_they_are_under_their_titles():
    images = torch.randint(0, 256, (5, 1, 4, 6), dtype=torch.uint8)
    picture = plot_images(images, titles=list("abcde"), columns=3, alt="Five images.")
    assert picture.alt == "Five images."
    assert len(picture.axes) == 6
    for ax, image, title in zip(picture.axes, images, "abcde", strict=False):
        (drawn,) = ax.images
        np.testing.assert_array_equal(drawn.get_array(), image[0])
        assert ax.get_title() == title
    assert not picture.axes[5].images and not picture.axes[5].axison


def test_maps_share_one_colour_scale_symmetric_about_zero_or_have_one_each():
    maps = np.stack([np.array([[1.0, -2.0]]), np.array([[0.5, 0.25]])])
    shared = plot_maps(maps, titles=["first", "second"], alt="Two maps.")
    assert [ax.images[0].get_clim() for ax in shared.axes[:2]] == [(-2, 2), (-2, 2)]
    assert [ax.get_title() for ax in shared.axes[:2]] == ["first", "second"]
    own = plot_maps(maps, shared_scale=False, alt="Two maps.")
    assert [ax.images[0].get_clim() for ax in own.axes] == [(-2, 2), (-0.5, 0.5)]
    for picture in (shared, own):
        np.testing.assert_array_equal([ax.images[0].get_array() for ax in picture.axes[:2]], maps)


def test_maps_of_zeros_can_be_drawn():
    picture = plot_maps(np.zeros((2, 3, 3)), alt="Nothing yet.")
    assert picture.axes[0].images[0].get_clim() == (-1, 1)
    assert picture._repr_mimebundle_()[0]["image/png"]


# --- matrices ----------------------------------------------------------------------------------------------


def test_a_matrix_is_drawn_and_written_as_it_is():
    matrix = np.array([[1.0, -2.5, 0.125], [0.0, 3.0, -4.0]])
    picture = plot_matrix(matrix, title="weights", x="to", y="from", numbers=True)
    ax = picture.axes[0]
    colours, texts = cells(ax, (2, 3))
    np.testing.assert_array_equal(colours, matrix)
    assert texts.tolist() == [["1.00", "-2.50", "0.12"], ["0.00", "3.00", "-4.00"]]
    assert ax.collections[0].get_clim() == (-4, 4)
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("weights", "to", "from")
    assert "weights" in picture.alt and "2 by 3" in picture.alt
    assert plot_matrix(matrix, alt="My words.").alt == "My words."


def test_blue_is_below_zero_red_above_and_white_at_zero():
    picture = plot_matrix(np.array([[-1.0, 0.0, 1.0]]), title="t")
    (mesh,) = picture.axes[0].collections
    below, zero, above = (np.array(mesh.cmap(mesh.norm(value))[:3]) for value in (-1, 0, 1))
    assert below[2] > below[0] + 0.2 and above[0] > above[2] + 0.2 and zero.min() > 0.95


def test_a_matrix_can_go_into_axes_that_are_there_with_a_scale_of_its_own():
    picture, (left, right) = figure(1, 2, alt="Two matrices.")
    assert plot_matrix(np.eye(2), title="a", ax=left, scale=5) is None
    plot_matrix(2 * np.eye(2), title="b", ax=right)
    assert len(picture.axes) == 2  # no colour bars came along
    assert left.collections[0].get_clim() == (-5, 5) and right.collections[0].get_clim() == (-2, 2)


# --- reports -----------------------------------------------------------------------------------------------


@pytest.fixture
def history():
    found = History()
    found.steps |= dict(loss=[2.0, 1.0, 0.5, 0.4], accuracy=[0.2, 0.5, 0.8, 0.9], learning_rate=[0.1, 0.2, 0.1, 0.0])
    found.epochs |= dict(train_loss=[1.5, 0.45], train_accuracy=[0.35, 0.85], validation_loss=[0.9, 0.5125],
                         validation_accuracy=[0.3, 0.8125], learning_rate=[0.2, 0.0], seconds=[1.0, 1.5],
                         images=[64, 64])  # fmt: skip
    return found


def test_the_curves_of_a_history_are_its_numbers(history):
    picture = plot_history(history, title="A run")
    left, right = picture.axes
    for ax, key in [(left, "loss"), (right, "accuracy")]:
        assert lines(ax) == {
            "training, each step": ([0.5, 1.0, 1.5, 2.0], history.steps[key]),
            "training, epoch mean": ([1, 2], history.epochs[f"train_{key}"]),
            "validation": ([1, 2], history.epochs[f"validation_{key}"]),
        }
        lowest, highest = ax.get_ylim()
        for values in (history.epochs[f"train_{key}"], history.epochs[f"validation_{key}"]):
            assert lowest < min(values) and max(values) < highest  # none is cut off
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss (nats)", "accuracy")
    assert left.get_yscale() == "log"
    assert picture.get_suptitle() == "A run"


def test_the_alt_text_of_a_history_tells_how_it_ends(history):
    alt = plot_history(history).alt
    assert "2 epochs" in alt and "0.512" in alt and "81.2%" in alt


def test_a_history_without_a_whole_epoch_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="epoch"):
        plot_history(History())


MATRIX = np.array([[950, 3, 0], [7, 1020, 41], [2, 0, 5]])


def test_a_confusion_matrix_shows_every_count_and_colours_the_mistakes():
    picture = plot_confusion_matrix(MATRIX, ["cat", "dog", "owl"])
    (ax,) = picture.axes
    colours, texts = cells(ax, (3, 3))
    assert texts.tolist() == MATRIX.astype(str).tolist()
    np.testing.assert_array_equal(colours, [[0, 3, 0], [7, 0, 41], [2, 0, 0]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog", "owl"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog", "owl"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")


def test_the_alt_text_of_a_confusion_matrix_counts_the_mistakes():
    alt = plot_confusion_matrix(MATRIX.tolist(), ["cat", "dog", "owl"]).alt
    assert "2,028 images" in alt and "53 of them predicted wrongly" in alt and "dog predicted as owl, 41 times" in alt
    alt = plot_confusion_matrix(np.diag([3, 4]), ["cat", "dog"]).alt
    assert alt == "Confusion matrix of 7 images, 0 of them predicted wrongly."


PER_CLASS = [
    dict(name="cat", precision=0.98, recall=0.96, f1=0.97, support=3),
    dict(name="dog", precision=0.91, recall=0.93, f1=0.9199, support=2),
]


def test_precision_and_recall_are_dots_where_they_belong():
    picture = plot_per_class(PER_CLASS)
    (ax,) = picture.axes
    found = {label: y for label, (_, y) in lines(ax).items() if label in ("precision", "recall")}
    assert found == {"precision": [0.98, 0.91], "recall": [0.96, 0.93]}
    at = {label: np.round(x).tolist() for label, (x, _) in lines(ax).items() if label in found}
    assert at == {"precision": [0, 1], "recall": [0, 1]}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "dog"]
    assert "0.9199" in picture.alt and "dog" in picture.alt


def test_precision_and_recall_can_be_told_apart_without_colour():
    first, second = (
        line for line in plot_per_class(PER_CLASS).axes[0].get_lines() if line.get_label() in ("precision", "recall")
    )
    assert first.get_marker() != second.get_marker() and to_rgb(first.get_color()) != to_rgb(second.get_color())


def test_a_reliability_diagram_shows_the_filled_bins_with_their_counts():
    probabilities = np.array([[0.55, 0.45]] * 4 + [[0.95, 0.05]] * 1100)
    found = calibration(probabilities, np.array([0, 0, 1, 1] + [0] * 1089 + [1] * 11))
    picture = plot_calibration(found)
    (ax,) = picture.axes
    x, y = lines(ax)["measured"]
    assert x == pytest.approx([0.55, 0.95]) and y == pytest.approx([0.5, 0.99])
    assert [text.get_text() for text in ax.texts] == ["4", "1,100"]
    assert lines(ax)["perfectly calibrated"] == ([0, 1], [0, 1])
    assert found["error"] == pytest.approx((4 * 0.05 + 1100 * 0.04) / 1104)
    assert "2 filled bins" in picture.alt and "0.040" in picture.alt


@pytest.mark.parametrize("size", [(6.4, 3.6), (3, 2)])
def test_every_figure_of_a_report_can_be_drawn(size, history):
    bins = calibration(np.eye(2), np.arange(2))
    for picture in (plot_history(history), plot_confusion_matrix(MATRIX, "abc", size=size),
                    plot_per_class(PER_CLASS, size=size), plot_calibration(bins, size=size)):  # fmt: skip
        png = picture._repr_mimebundle_()[0]["image/png"]
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
