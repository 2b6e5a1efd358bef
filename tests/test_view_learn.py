import dataclasses
import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from mixer_utils import MlpMixer, load_dataset
from mixer_utils import data as datasets
from mixer_utils._files import Unreachable
from mixer_utils.data import Split
from mixer_utils.training import hold_out
from mixer_utils.widgets import base, train_in_browser
from mixer_utils.widgets.learn import evenly, packed_levels, unpacked_levels
from mixer_utils.widgets.page import embedded


@pytest.fixture(scope="module")
def view():
    return train_in_browser()


def labels(view, part):
    return np.frombuffer(view.data[part]["labels"]["bytes"], view.data[part]["labels"]["dtype"])


def places(images, pool):
    """Where each image stands in the pool."""
    at = {image.tobytes(): i for i, image in enumerate(pool)}
    return [at[image.tobytes()] for image in images]


@pytest.mark.parametrize("part, per_class", [("train", 500), ("held_out", 100)])
def test_the_browser_gets_as_many_images_of_each_class_in_sixteen_levels(view, mnist, part, per_class):
    assert np.bincount(labels(view, part)).tolist() == [per_class] * 10
    pool = hold_out(mnist.train, 5000)[["train", "held_out"].index(part)]
    quantised = np.round(pool.images.numpy()[:, 0] / 17).astype(np.uint8)
    found = places(view.levels(part), quantised)
    assert found == sorted(set(found)) and np.array_equal(pool.labels.numpy()[found], labels(view, part))
    of_class = np.flatnonzero(pool.labels.numpy() == 3)  # evenly spread: the first one, the last one, and those between
    chosen = [at for at in found if pool.labels[at] == 3]
    assert chosen[0] == of_class[0] and chosen[-1] == of_class[-1]
    steps = np.diff(np.searchsorted(of_class, chosen))
    assert steps.max() - steps.min() <= 1


def test_none_of_them_is_a_test_image(view, mnist):
    test = {image.tobytes() for image in np.round(mnist.test.images.numpy()[:, 0] / 17).astype(np.uint8)}
    assert not any(image.tobytes() in test for part in ("train", "held_out") for image in view.levels(part))


def test_all_of_it_takes_less_than_a_megabyte_of_a_page(view):
    places, end = embedded([view.get_state()])
    buffers = end[end.index("</style>") : end.index('<script type="module">')]
    assert len(places[0]) + len(buffers) < 1_000_000
    assert view.get_state()["data"] == train_in_browser().get_state()["data"]


def test_levels_are_the_nearest_ones_and_an_odd_pixel_is_kept():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(unpacked_levels(packed_levels(every)), np.round(every / 17))
    np.testing.assert_array_equal(unpacked_levels(packed_levels(np.array([[[255, 17, 34]]], np.uint8))), [15, 1, 2, 0])
    assert packed_levels(np.array([255, 17], np.uint8))["bytes"] == bytes([0xF1])


def test_the_configurations_are_a_mixer_s(view):
    assert list(view.data["configs"]) == ["7", "4", "2"] and view.patch_size == 7
    for size, config in view.data["configs"].items():
        model = MlpMixer(**config)
        assert model.config == config and model.image_shape == (1, 28, 28) and config["patch_size"] == int(size)
        assert config["num_blocks"] == view.data["num_blocks"]


def test_where_mnist_cannot_be_had_digits_take_its_place_and_one_line_says_so(monkeypatch, capsys):
    def unreachable():
        raise Unreachable("no network", "mnist could not be had")

    monkeypatch.setitem(datasets.LOADERS, "mnist", unreachable)
    view = train_in_browser()
    assert capsys.readouterr().out == (
        "mnist could not be had (no network): these are 1,797 images of digits instead.\n"
    )
    assert view.data["name"] == "digits"
    assert len(set(np.bincount(labels(view, "train")))) == 1 and len(labels(view, "train")) > 1000
    training, held_out = hold_out(load_dataset("digits").train, 200)
    for part, pool in [("train", training), ("held_out", held_out)]:
        places(view.levels(part), np.round(pool.images.numpy()[:, 0] / 17).astype(np.uint8))


def test_patches_that_do_not_fit_are_not_offered(few_digits):
    def cropped(split):
        return Split(split.images[:, :, :24, :20], split.labels)

    view = train_in_browser(dataclasses.replace(few_digits, train=cropped(few_digits.train)))
    assert view.data["patch_sizes"] == [4, 2] and view.patch_size == 4 and view.levels("train").shape[1:] == (24, 20)


def test_what_cannot_be_trained_on_is_said_in_one_sentence(few_digits, monkeypatch):
    with pytest.raises(ValueError, match=r"^This view trains on a Dataset that is in memory, not on a list: give "):
        train_in_browser([1])
    colour = Split(few_digits.train.images.expand(-1, 3, -1, -1), few_digits.train.labels)
    with pytest.raises(ValueError, match=r"even or multiples of 7, digits has images \(3, 28, 28\): give "):
        train_in_browser(dataclasses.replace(few_digits, train=colour))
    odd = Split(few_digits.train.images[:, :, :25], few_digits.train.labels)
    with pytest.raises(ValueError, match=r"digits has images \(1, 25, 28\): give "):
        train_in_browser(dataclasses.replace(few_digits, train=odd))
    with pytest.raises(ValueError, match=r"^digits has 12 training images, too few of some class: .* 25 in all"):
        train_in_browser(dataclasses.replace(few_digits, train=few_digits.train[:12]))
    no_three = few_digits.train[few_digits.train.labels != 3]
    with pytest.raises(ValueError, match=r"too few of some class"):
        train_in_browser(dataclasses.replace(few_digits, train=no_three))
    monkeypatch.setattr(base, "MOST_SENT", 10_000)
    with pytest.raises(ValueError, match=r"^The images of digits take 0\.1 MB, .* at most 0 MB .*: give smaller ones"):
        train_in_browser(few_digits)


def test_evenly_takes_what_the_smallest_class_has():
    split = Split(torch.arange(9).view(9, 1, 1, 1), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1]))
    assert evenly(split, 2, 100).labels.bincount().tolist() == [4, 4]
    assert evenly(split, 2, 5).images.flatten().tolist() == [0, 4, 5, 8]


@pytest.mark.parametrize("trait, value, message", [
    ("block", 2, "block is 2: it must be from 0 to 1."), ("patch_size", 5, "patch_size is 5: it must be 7, 4 or 2."),
    ("seed", -1, "seed is -1: it must be from 0 to 2147483647."),
])  # fmt: skip
def test_a_trait_out_of_range_is_refused(view, trait, value, message):
    with pytest.raises(traitlets.TraitError) as caught:
        setattr(view, trait, value)
    assert str(caught.value) == message


def test_every_control_is_a_trait_that_the_browser_shares(view):
    assert {"patch_size", "learning_rate", "seed", "block", "before"} <= set(view.keys)
    with pytest.raises(traitlets.TraitError):
        view.learning_rate = 0.5
    view.learning_rate = 0.01


def test_where_no_widget_can_be_shown_a_picture_of_the_images_stands_in(view):
    picture = view.picture()
    assert picture.alt == (
        "Four of the 5,000 training images of each class, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9. The live view trains a small "
        "Mixer on them in the browser, and its token-mixing maps form while one watches."
    )
    assert len(picture.axes) == 40 and [ax.get_title() for ax in picture.axes[:10]] == list("0123456789")
    first = view.levels("train")[labels(view, "train") == 6][1]
    np.testing.assert_array_equal(picture.axes[16].get_images()[0].get_array(), first)
    data, metadata = view._repr_mimebundle_()
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(data)
    assert metadata["image/png"] == {"alt": picture.alt}
    assert Image.open(io.BytesIO(data["image/png"])).size[0] > 500
    assert repr(view) == "LearnView(learn)"
