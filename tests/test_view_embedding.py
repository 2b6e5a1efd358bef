"""The view of the patch embedding: what it sends is what numpy and torch's own count find in another way."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from traitlets import TraitError

from mixer_utils import MlpMixer, create_mixer, load_pretrained, mixing
from mixer_utils.data import normalize
from mixer_utils.widgets import embedding as views
from mixer_utils.widgets import explore_embedding
from mixer_utils.widgets.base import MOST_SENT

SORTS = ("norm", "frequency", "number")


def bytes_in(value):
    if isinstance(value, dict):
        return sum(map(bytes_in, value.values()))
    return len(value) if isinstance(value, bytes) else 0


def some_images(model, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, *model.image_shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def shipped():
    return explore_embedding(load_pretrained("mnist"))


@pytest.fixture(params=[(1, (8, 12), 4, 24), (3, (8, 12), 4, 10), (3, (6, 6), 2, 12)], ids=["C>D", "C<D", "C=D"])
def small(request, tiny_mixer):
    """Views of small stems: more filters than numbers in a patch, fewer, and as many."""
    channels, size, P, C = request.param
    model = tiny_mixer(image_size=size, in_channels=channels, patch_size=P, hidden_dim=C)
    model.about = {"mean": [0.4] * channels, "std": [0.2 + 0.1 * c for c in range(channels)]}
    return model, explore_embedding(model, some_images(model))


# --- the image rebuilt ------------------------------------------------------------------------------------------------


def by_least_squares(model, image, filters):
    """The image with each patch in its nearest point of the filters' span, patch by patch: (in_channels, H, W)."""
    found, P = np.zeros_like(image), model.config["patch_size"]
    for top in range(0, image.shape[1], P):
        for left in range(0, image.shape[2], P):
            patch = image[:, top : top + P, left : left + P]
            weights = np.linalg.lstsq(filters.T, patch.ravel(), rcond=None)[0]
            found[:, top : top + P, left : left + P] = (filters.T @ weights).reshape(patch.shape)
    return found


@pytest.mark.parametrize("sort", SORTS)
def test_the_rebuilt_image_is_the_least_squares_one(small, sort):
    model, view = small
    images = normalize(torch.from_numpy(some_images(model)), model.about["mean"], model.about["std"]).double().numpy()
    filters = model.stem.proj.weight.detach().double().flatten(1).numpy()
    view.sort, view.image = sort, 1
    for k in range(0, len(filters) + 1, 3):
        view.k = k
        expected = by_least_squares(model, images[1], filters[view.sorts[sort]["order"][:k]])
        np.testing.assert_allclose(view.rebuilt(), expected, atol=1e-9)
        error, share = view.error()
        assert error == pytest.approx(np.square(expected - images[1]).mean(), abs=1e-12)
        assert share == pytest.approx(1 - error / np.square(images[1]).mean(), abs=1e-12)


def test_more_filters_never_make_the_error_larger_and_all_of_a_patch_makes_it_zero(small, shipped):
    for view in (small[1], shipped):
        for one in view.sorts.values():
            errors, whole = one["errors"][:, one["ranks"]], view.filters.shape[1]
            assert (np.diff(errors) <= 1e-15).all() and (errors[:, 0] > 0.1).all()
            full = one["ranks"] == whole
            assert full.any() == (len(view.filters) >= whole)
            assert (errors[:, full] < 1e-12).all() and (errors[:, ~full] > 1e-9).all()


def test_all_sorts_span_the_same_in_the_end(small):
    ends = [one["errors"][:, one["ranks"][-1]] for one in small[1].sorts.values()]
    np.testing.assert_allclose(ends, [ends[0]] * 3, atol=1e-12)


def test_the_rows_sent_are_orthonormal_and_unpack_to_what_was_computed(small):
    for sort, one in small[1].sorts.items():
        sent = small[1].data["sorts"][sort]["basis"]
        basis = np.frombuffer(sent["bytes"], sent["dtype"]).reshape(sent["shape"])
        np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-6)
        np.testing.assert_allclose(basis, one["basis"], atol=1e-7)


def test_dead_and_repeated_filters_add_nothing(tiny_mixer):
    model = tiny_mixer(patch_size=7, hidden_dim=6)
    with torch.no_grad():
        weight = model.stem.proj.weight
        weight[0] = 0
        weight[3] = -2 * weight[2]
        weight[5] = weight[1] + weight[4]
    view = explore_embedding(model)
    assert view.data["num_dead"] == 1
    assert view.sorts["number"]["ranks"].tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert view.sorts["number"]["basis"].shape == (3, 49)
    assert view.sorts["norm"]["order"][-1] == 0 and view.sorts["norm"]["ranks"][-1] == 3
    with torch.no_grad():
        weight.zero_()
    view = explore_embedding(model)
    assert view.data["num_dead"] == 6 and view.sorts["norm"]["ranks"].tolist() == [0] * 7
    assert not view.rebuilt().any()


def test_of_the_shipped_model_49_filters_keep_all_of_a_patch_in_every_order(shipped):
    assert shipped.data["num_filters"] == 192 and shipped.data["num_dead"] == 0
    for one in shipped.sorts.values():
        assert one["ranks"].tolist() == [min(k, 49) for k in range(193)]


# --- the filters ------------------------------------------------------------------------------------------------------


def test_the_orders_are_by_norm_by_frequency_and_as_in_the_model(shipped):
    filters = load_pretrained("mnist").stem.proj.weight.detach().flatten(1).numpy()
    norms = np.linalg.norm(filters, axis=1)
    assert (np.diff(norms[shipped.sorts["norm"]["order"]]) <= 0).all()
    np.testing.assert_array_equal(shipped.sorts["frequency"]["order"], mixing.by_frequency(filters, (7, 7)))
    np.testing.assert_array_equal(shipped.sorts["number"]["order"], np.arange(192))


def test_the_frequency_of_a_colour_filter_is_that_of_its_channels_by_their_power():
    stripes = np.tile([1.0, -1.0], (4, 2))  # half a cycle per pixel
    flat, nothing = np.ones((4, 4)), np.zeros((4, 4))
    filters = np.stack([[flat, flat, flat], [stripes, nothing, nothing], [stripes, flat, nothing], [nothing] * 3])
    np.testing.assert_allclose(views.frequencies(filters.reshape(4, -1), 3), [0, 0.5, 0.25, 0], atol=1e-12)


def test_grey_filters_get_the_signed_colours_and_colour_filters_their_own():
    table = views.signed_colours()
    grey = views.as_colours(np.array([[[-2.0, 0, 2]]]), 2)
    np.testing.assert_array_equal(grey[0], table[[0, 128, 255]])
    colour = views.as_colours(np.array([-1.0, 0, 1]).reshape(3, 1, 1), 1)
    assert colour.tolist() == [[[0, 128, 255]]]


# --- the cost ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, channels", [((8, 12), 3), (28, 1)])
def test_the_cost_at_every_patch_size_is_what_torch_counts_on_a_real_mixer(size, channels):
    widths = dict(num_classes=7, num_blocks=2, hidden_dim=6, tokens_mlp_dim=5, channels_mlp_dim=9)
    sizes = dict(image_size=size, in_channels=channels, **widths)
    base = MlpMixer(patch_size=2, **sizes)
    height, width = base.image_shape[1:]
    costs = explore_embedding(base, some_images(base)).data["costs"]
    assert [cost["patch_size"] for cost in costs] == ([1, 2, 4] if channels == 3 else [1, 2, 4, 7, 14, 28])
    for cost in costs:
        model = MlpMixer(patch_size=cost["patch_size"], **sizes)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, channels, height, width))
        assert cost["multiply_adds"] == counter.get_total_flops() // 2
        assert cost["parameters"] == sum(parameter.numel() for parameter in model.parameters())
        assert cost["tokens"] == model.num_tokens
        assert cost["numbers"] == model.stem.proj.weight[0].numel()


# --- the view ---------------------------------------------------------------------------------------------------------


def test_it_starts_with_one_test_image_of_each_class_and_the_model_s_own_patch_size(shipped, mnist):
    sent = shipped.data["images"]
    images = np.frombuffer(sent["bytes"], np.uint8).reshape(sent["shape"])
    assert len(images) == 10
    for digit, image in enumerate(images):
        first = int((mnist.test.labels == digit).nonzero()[0])
        np.testing.assert_array_equal(image, mnist.test.images[first])
    assert shipped.data["mean"] == [0.1307] and shipped.data["std"] == [0.3081]
    assert shipped.patch_size == 7 and shipped.sort == "norm" and shipped.k == 16
    assert shipped.filter == shipped.sorts["norm"]["order"][0]


@pytest.mark.parametrize("name", ["B/16", "B/32"])
def test_large_stems_fit_into_what_may_be_sent(name):
    model = create_mixer(name, num_blocks=1)
    view = explore_embedding(model, some_images(model, 10))
    assert bytes_in(view.data) < MOST_SENT
    view.k = last = view.data["num_k"] - 1
    assert last == 768 if name == "B/16" else 100 < last < 768  # B/32: 3,072 numbers in a patch
    basis = view.data["sorts"]["norm"]["basis"]
    assert basis["dtype"] == "float16" and basis["shape"] == [last, view.filters.shape[1]]
    assert view.error()[0] < 1e-12 if name == "B/16" else view.error()[0] > 0.01


@pytest.mark.parametrize(
    "name, value, said",
    [("patch_size", 5, "patch_size is 5: a size that divides 28 x 28 is one of 1, 2, 4, 7, 14, 28."),
     ("image", 10, "image is 10: it must be from 0 to 9."), ("filter", -1, "filter is -1: it must be from 0 to 191."),
     ("k", 193, "k is 193: it must be from 0 to 192.")],
)  # fmt: skip
def test_a_bad_value_is_refused_in_one_sentence(shipped, name, value, said):
    before = getattr(shipped, name)
    with pytest.raises(TraitError) as error:
        setattr(shipped, name, value)
    assert str(error.value) == said and getattr(shipped, name) == before


def test_what_cannot_be_shown_is_refused_in_one_sentence(tiny_mixer):
    with pytest.raises(ValueError, match="This view shows an MlpMixer, not a Linear"):
        explore_embedding(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="images have 2 channels: this view draws 1 .grey. or 3 .colour.[.]$"):
        explore_embedding(tiny_mixer(in_channels=2))
    colour = tiny_mixer(in_channels=3, image_size=32, patch_size=8)
    takes = r"The model takes images uint8 \(N, 3, 32, 32\), not "
    with pytest.raises(ValueError, match=takes + r"uint8 \(10, 1, 28, 28\): give images= of that kind"):
        explore_embedding(colour)
    with pytest.raises(ValueError, match=takes + r"float32 \(2, 3, 32, 32\)"):
        explore_embedding(colour, torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match=takes + r"uint8 \(0, 3, 32, 32\)"):
        explore_embedding(colour, torch.zeros(0, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="700 images are too many to send: give at most 651 of them"):
        explore_embedding(colour, torch.zeros(700, 3, 32, 32, dtype=torch.uint8))


def test_without_a_front_end_there_is_a_picture_that_says_what_it_shows(small, shipped):
    for view in (small[1], shipped):
        view.k = 5
        data, about = view._repr_mimebundle_()
        assert (
            data["image/png"] and f"from the first 5 filters, {view.error()[1]:.1%} of it" in about["image/png"]["alt"]
        )
        axes = {ax.get_title(): ax for ax in view.picture().axes}
        shown = axes["from 5 filters"].images[0].get_array()
        np.testing.assert_array_equal(shown, view.as_pixels(view.rebuilt()))
        marked = axes["mean squared error"].lines[1].get_xydata()[0]
        np.testing.assert_allclose(marked, [5, view.error()[0]])
