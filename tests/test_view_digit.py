"""The view that is drawn on: what it sends, what its traits take, and the images it offers as a start."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image
from traitlets import TraitError

from mixer_utils import load_dataset, load_pretrained
from mixer_utils.data import Split
from mixer_utils.widgets import digit, draw_digit


@pytest.fixture(scope="module")
def model():
    return load_pretrained("mnist")


@pytest.fixture
def view(model):
    return draw_digit(model)


@pytest.fixture
def small(tiny_mixer):
    """A view of a small untrained model without examples: 28 x 28 pixels, four patches."""
    return draw_digit(tiny_mixer(), data=False)


def bytes_in(value):
    if isinstance(value, dict):
        return sum(map(bytes_in, value.values()))
    return len(value) if isinstance(value, bytes) else 0


# --- from pixels to the answer ----------------------------------------------------------------------------------------


def test_the_probabilities_are_the_model_s_for_the_normalised_image(model, view, mnist):
    for index in (0, 8):
        view.pixels = mnist.test.images[index].numpy().tobytes()
        with torch.no_grad():
            expected = model(mnist.normalize(mnist.test.images[index : index + 1])).softmax(1)[0]
        np.testing.assert_allclose(view.forward()[0], expected, atol=1e-6)


def test_the_tokens_are_the_stem_s_and_every_block_s(model, view, mnist):
    view.pixels = mnist.test.images[0].numpy().tobytes()
    stages = {}
    with torch.no_grad():
        model(mnist.normalize(mnist.test.images[:1]), stages)
    tokens = view.forward()[1]
    assert tokens.shape == (5, 16, 192)
    for found, name in zip(tokens, ["stem", "block_0", "block_1", "block_2", "block_3"], strict=True):
        np.testing.assert_allclose(found, stages[name][0], atol=1e-4)


def test_hidden_patches_are_black_before_normalisation_and_the_rest_is_as_it_was(small):
    small.pixels = bytes([200]) * 784
    small.hidden = [3, 0, 3]
    assert small.hidden == [0, 3]
    image = small.image()
    assert (image[:14, :14] == 0).all() and (image[14:, 14:] == 0).all()
    assert (image[:14, 14:] == 200).all() and (image[14:, :14] == 200).all()
    assert small.pixels == bytes([200]) * 784


def test_without_mean_and_std_of_its_own_the_model_gets_the_data_s(tiny_mixer, mnist):
    model = tiny_mixer()
    data = dataclasses.replace(mnist, test=mnist.test[:50], mean=(0.25,), std=(0.5,))
    view = draw_digit(model, data)
    view.pixels = bytes([255]) * 784
    with torch.no_grad():
        expected = model(torch.full((1, 1, 28, 28), 1.5)).softmax(1)[0]
    np.testing.assert_allclose(view.forward()[0], expected, atol=1e-6)
    view = draw_digit(model, data=False)
    assert (view.data["mean"], view.data["std"]) == (0, 1)


def test_the_view_keeps_the_model_as_it_was(tiny_mixer):
    model = tiny_mixer()
    view = draw_digit(model, data=False)
    before = view.forward()[0]
    with torch.no_grad():
        model.head.weight.zero_()
    np.testing.assert_array_equal(view.forward()[0], before)
    np.testing.assert_allclose(view.probabilities, before)


# --- examples to start from -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def part(mnist):
    """300 test images, which hold two of the shipped model's mistakes."""
    return dataclasses.replace(mnist, test=mnist.test[2400:2700])


def test_the_examples_are_three_of_each_class_and_the_mistakes_worst_first(model, part):
    view = draw_digit(model, part)
    starts = view.data["starts"]
    groups = [start["group"] for start in starts]
    assert groups[:30] == ["Test images"] * 30
    assert len(groups) > 31 and set(groups[30:]) == {"The model's worst mistakes in 300 test images"}
    losses = []
    for i, start in enumerate(starts):
        view.start = i
        index = int(start["label"].split("test image ")[1].removesuffix(")"))
        label = part.test.labels[index].item()
        assert view.pixels == part.test.images[index].numpy().tobytes()
        assert start["label"].startswith(str(label))
        probabilities = view.forward()[0]
        if i < 30:
            assert label == i // 3
        else:
            called = int(start["label"].split("called ")[1][0])
            assert called == probabilities.argmax() != label
            losses.append(-np.log(probabilities[label]))
    assert losses == sorted(losses, reverse=True)


def test_mistakes_are_looked_for_in_images_evenly_spread_as_the_list_says(tiny_mixer, mnist, monkeypatch):
    monkeypatch.setattr(digit, "MOST_TRIED", 30)
    model, part = tiny_mixer(), dataclasses.replace(mnist, test=mnist.test[:100])
    view = draw_digit(model, part)
    wrong = [start for start in view.data["starts"] if "called" in start["label"]]
    assert {start["group"] for start in wrong} == {"The model's worst mistakes in 25 test images"}
    with torch.no_grad():
        logits = model(mnist.normalize(part.test.images[::4]))
    losses = torch.nn.functional.cross_entropy(logits, part.test.labels[::4], reduction="none")
    losses[logits.argmax(1) == part.test.labels[::4]] = -1
    worst = losses.argsort(descending=True)[:12] * 4
    assert [int(start["label"].split("test image ")[1][:-1]) for start in wrong] == worst.tolist()


def test_a_model_that_is_always_right_has_no_mistakes(tiny_mixer, mnist):
    model = tiny_mixer()
    with torch.no_grad():
        called = model(mnist.normalize(mnist.test.images[:60])).argmax(1)
    right = dataclasses.replace(mnist, test=Split(mnist.test.images[:60], called))
    assert {start["group"] for start in draw_digit(model, right).data["starts"]} == {"Test images"}


def test_where_mnist_cannot_be_had_there_is_drawing_alone_and_a_line_says_so(model, monkeypatch, tmp_path):
    monkeypatch.setenv("MIXER_DATA", str(tmp_path))
    view = draw_digit(model)
    assert view.data["starts"] == [] and view.start == -1 and view.pixels == bytes(784)
    assert view.data["note"] == "There are no images to start from, as mnist could not be had."
    assert view.data["class_names"] == list("0123456789")


def test_a_model_for_images_of_another_size_has_no_examples_but_can_be_drawn_for(tiny_mixer):
    view = draw_digit(tiny_mixer(image_size=(8, 12), patch_size=4, num_classes=12))
    assert view.data["starts"] == [] and len(view.pixels) == 96
    assert view.data["note"] == "There are no images to start from, as the model is not for those of mnist."
    assert view.data["class_names"] == [str(k) for k in range(12)]


def test_a_photograph_is_prepared_as_the_model_s_training_images_were(model, tiny_mixer, mnist):
    assert draw_digit(model).data["pictures"] == "digit"
    assert draw_digit(tiny_mixer(), data=False).data["pictures"] == "digit"  # 28 x 28 and nothing known of it
    assert draw_digit(tiny_mixer(image_size=(8, 12), patch_size=4), data=False).data["pictures"] == "stretch"
    garments = dataclasses.replace(mnist, test=mnist.test[:50], pictures="stretch")
    assert draw_digit(tiny_mixer(), garments).data["pictures"] == "stretch"
    trained = tiny_mixer()
    trained.about = {"dataset": "fashion-mnist"}
    assert draw_digit(trained, data=False).data["pictures"] == "stretch"


# --- traits -----------------------------------------------------------------------------------------------------------


def test_loading_an_example_sets_the_pixels_and_drawing_leaves_it(view):
    seen = []
    view.observe(lambda change: seen.append(change["new"]), "pixels")
    view.start = 31
    assert len(seen) == 1 and view.start == 31
    drawn = bytearray(view.pixels)
    drawn[0] ^= 255
    view.pixels = bytes(drawn)
    assert view.start == -1 and view.pixels == bytes(drawn)


def test_what_the_browser_sends_is_taken_as_it_comes(view):
    """Pixels and start in one message, the bytes as a memoryview."""
    start, example = 5, bytes(view.data["examples"]["bytes"][5 * 784 : 6 * 784])
    view.set_state({"pixels": memoryview(example), "start": start})
    assert view.pixels == example and view.start == 5
    view.set_state({"pixels": memoryview(bytes(784)), "start": -1})
    assert view.pixels == bytes(784) and view.start == -1


@pytest.mark.parametrize(
    ("trait", "value", "sentence"),
    [
        (
            "pixels",
            bytes(5),
            r"^pixels holds 5 bytes: it must hold 784, a grey value from 0 to 255 for each of 28 × 28 ",
        ),
        ("hidden", [0, 4], "^hidden holds 4: a patch must be from 0 to 3.$"),
        ("hidden", [-1], "^hidden holds -1: a patch must be from 0 to 3.$"),
        ("start", 0, "^start is 0: it must be -1, as this view has no examples.$"),
        ("channel", 12, "^channel is 12: it must be from 0 to 11.$"),
        ("patch", 4, "^patch is 4: it must be from 0 to 3.$"),
        ("tool", "pencil", "'tool' trait"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence_and_changes_nothing(small, trait, value, sentence):
    before = getattr(small, trait)
    with pytest.raises(TraitError, match=sentence):
        setattr(small, trait, value)
    assert getattr(small, trait) == before


def test_a_start_beyond_the_examples_is_refused(view):
    count = len(view.data["starts"])
    with pytest.raises(TraitError, match=rf"start is {count}\b.*from 0 to {count - 1}, or -1\b"):
        view.start = count


# --- what is sent, refused and shown ----------------------------------------------------------------------------------


def test_the_shipped_model_sends_three_megabytes(model):
    view = draw_digit(model)
    assert 2.4e6 < bytes_in(view.get_state()) < 3e6


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"in_channels": 3}, r"\b3 channels: give one that reads 1\b"),
        (
            {"channels_mlp_dim": 60_000},
            r"\b12\.0 MB\b.*\b10 MB\b.*give a smaller model",
        ),
    ],
)
def test_a_model_that_cannot_be_shown_is_refused_in_one_sentence(tiny_mixer, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw_digit(tiny_mixer(**changes), data=False)
    with pytest.raises(ValueError, match="^This view shows an MlpMixer, not a Linear: give "):
        draw_digit(torch.nn.Linear(2, 2))


def test_data_of_other_sizes_than_the_model_s_is_refused(tiny_mixer, mnist):
    with pytest.raises(ValueError, match=r"^The model is for images \(1, 28, 28\) of 7 classes, mnist has images "):
        draw_digit(tiny_mixer(num_classes=7), mnist)
    with pytest.raises(ValueError, match=r"^The model is for images \(1, 8, 8\) of 10 classes, digits has images "):
        draw_digit(tiny_mixer(image_size=8, patch_size=4), load_dataset("digits"))


def test_the_picture_says_and_shows_the_answer(view):
    view.start, view.hidden = 20, [0]  # a 6
    bundle = view._repr_mimebundle_()
    data, metadata = bundle
    assert metadata["image/png"]["alt"] == (
        f"A drawn image, 1 of its patches hidden, and beside it the model's answer as bars: 6 with a probability of "
        f"{view.forward()[0][6]:.1%}."
    )
    pixels = np.asarray(Image.open(io.BytesIO(data["image/png"])).convert("RGB")).astype(int)
    blue = (np.abs(pixels - [0, 0x72, 0xB2]).max(2) < 6).sum()
    assert blue > 500 and (pixels[:, : pixels.shape[1] // 2] < 10).all(2).sum() > 10_000  # the bar, the black image
    axes = view.picture().axes
    np.testing.assert_array_equal(axes[0].images[0].get_array(), view.image())
    np.testing.assert_allclose([bar.get_width() for bar in axes[1].patches], view.forward()[0])
