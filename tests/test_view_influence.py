"""explore_influence: what is sent to the browser, what the state at hand says, and what it refuses."""

import numpy as np
import pytest
import torch
import traitlets

from mixer_utils import create_mixer, load_pretrained, mixing
from mixer_utils.data import normalize
from mixer_utils.widgets import explore_influence
from mixer_utils.widgets.base import MOST_SENT, packed_mixer

ODD = dict(image_size=(21, 14), in_channels=3, patch_size=7, hidden_dim=10, num_blocks=3, tokens_mlp_dim=5)
TRAITS = ["image", "block", "patch", "unit", "channel", "show", "direction"]


@pytest.fixture
def images():
    return torch.randint(256, (4, 3, 21, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tiny_mixer):
    return tiny_mixer(**ODD)


@pytest.fixture
def view(model, images):
    return explore_influence(model, images)


@pytest.fixture(scope="module")
def shipped():
    return explore_influence(load_pretrained("mnist"))


@pytest.fixture(scope="module")
def large():
    torch.manual_seed(0)
    return explore_influence(create_mixer("B/16"), torch.randint(256, (2, 3, 224, 224), dtype=torch.uint8))


def sent(value):
    """Bytes in a state that goes to the browser."""
    if isinstance(value, dict | list | tuple):
        return sum(map(sent, value.values() if isinstance(value, dict) else value))
    return len(value) if isinstance(value, bytes) else 0


def unpacked(one):
    return np.frombuffer(one["bytes"], one["dtype"]).reshape(one["shape"])


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_weights_that_are_half_precision_are_sent_so_and_others_whole(model):
    for one, dtype in [(load_pretrained("mnist"), "float16"), (model, "float32")]:
        spec = packed_mixer(one)
        assert spec["config"] == one.config and spec["image_shape"] == list(one.image_shape)
        assert spec["tensors"].keys() == one.state_dict().keys()
        for name, tensor in one.state_dict().items():
            array = unpacked(spec["tensors"][name])
            assert array.dtype == dtype and np.array_equal(array, tensor.numpy())


def test_the_shipped_model_is_sent_with_the_first_test_image_of_each_class(shipped, mnist):
    images = unpacked(shipped.data["images"])
    assert images.shape == (10, 1, 28, 28)
    for digit in (0, 9):
        first = mnist.test.labels.tolist().index(digit)
        assert np.array_equal(images[digit], mnist.test.images[first])
    assert shipped.data["mixer"] == packed_mixer(shipped.model) and "trace" not in shipped.data
    assert (shipped.data["mean"], shipped.data["std"]) == (list(mnist.mean), list(mnist.std))


def test_of_a_large_model_one_image_is_followed_here_and_its_numbers_are_sent(large):
    assert large.data["num_images"] == 1 and "mixer" not in large.data
    assert large.data["num_blocks"] == large.data["all_blocks"] == 12
    assert 8e6 < sent(large.data) <= MOST_SENT
    for name in ["influence", "normed", "sizes"]:
        found, expected = unpacked(large.data["trace"][name]), large.trace()[name]
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    weights = large.model.blocks[7].token_mixing.dense_1.weight.detach().numpy()
    np.testing.assert_allclose(unpacked(large.data["trace"]["maps"])[7, 1], weights.T, rtol=1e-3, atol=1e-6)


def test_of_a_model_larger_still_as_many_blocks_are_sent_as_fit(monkeypatch, model, images):
    monkeypatch.setattr("mixer_utils.widgets.base.MOST_SENT", 2200)  # an image is 882 bytes, a block about 330
    view = explore_influence(model, images)
    assert (view.data["num_blocks"], view.data["all_blocks"]) == (3, 3)
    monkeypatch.setattr("mixer_utils.widgets.base.MOST_SENT", 1700)
    view = explore_influence(model, images)
    assert (view.data["num_blocks"], view.data["all_blocks"]) == (2, 3)
    assert unpacked(view.data["trace"]["normed"]).shape == (2, 6, 10)
    view.block = 1
    with pytest.raises(traitlets.TraitError):
        view.block = 2


# --- the state at hand ------------------------------------------------------------------------------------------------


def test_a_row_is_what_moves_the_patch_and_a_column_what_it_moves(view, model, images):
    influence = mixing.influence(model, normalize(images[2:3], [0.5], [0.5])[0]).numpy()
    view.image, view.block, view.patch = 2, 1, 4
    assert np.array_equal(view.row(), influence[1, 4])
    view.direction = "writes"
    assert np.array_equal(view.row(), influence[1, :, 4])
    view.show = "composed"
    eye = np.eye(6)
    np.testing.assert_allclose(view.row(), ((eye + influence[1]) @ (eye + influence[0]))[:, 4], rtol=1e-5, atol=1e-6)


def test_what_the_units_add_up_to_is_what_token_mixing_gives(view, model, images):
    view.image, view.block, view.channel = 3, 2, 8
    stages = {}
    with torch.no_grad():
        model.eval()(normalize(images[3:], [0.5], [0.5]), intermediates=stages)
        block = model.blocks[2]
        expected = block.token_mixing(block.norm_0(stages["block_1"]))[0, :, 8]
    found = block.token_mixing.dense_1.bias.detach().numpy().copy()
    for view.unit in range(5):
        sum_ = view.arithmetic()
        assert sum_["sum"] == pytest.approx(sum_["products"].sum() + sum_["bias"], rel=1e-5)
        found += sum_["writes"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_units_that_write_most_to_the_patch_come_first(view):
    view.patch, view.block = 3, 1
    size = []
    for view.unit in range(5):
        added = []
        for view.channel in range(10):
            added.append(view.arithmetic()["writes"][3])
        size.append(np.sqrt(np.mean(np.square(added))))
    assert view.strengths() == pytest.approx(np.array(size), rel=1e-4)
    assert view.order().tolist() == sorted(range(5), key=lambda unit: -size[unit])


def test_it_opens_on_the_strongest_unit_in_a_channel_where_it_does_something(shipped):
    view = explore_influence(shipped.model)
    assert (view.patch, view.block, view.image) == (10, 0, 0)
    assert view.unit == view.order()[0]
    best, channels = abs(view.arithmetic()["gelu"]), []
    for view.channel in range(0, 192, 7):
        channels.append(abs(view.arithmetic()["gelu"]))
    assert best >= max(channels)


@pytest.mark.parametrize(
    "name, count", [("image", 4), ("block", 3), ("patch", 6), ("unit", 5), ("channel", 10)], ids=lambda one: str(one)
)
def test_a_number_beyond_the_last_is_refused(view, name, count):
    setattr(view, name, count - 1)
    for wrong in (count, -1):
        with pytest.raises(traitlets.TraitError, match=rf"{name} is {wrong}\b.*from 0 to {count - 1}\b"):
            setattr(view, name, wrong)


def test_every_control_is_a_trait_that_the_browser_shares(view):
    assert set(TRAITS) <= set(view.get_state())
    seen = []
    view.observe(lambda change: seen.append(change["new"]), "patch")
    view.set_state({"patch": 5})
    assert seen == [5]


def test_the_picture_shows_the_state_and_says_what_it_shows(view):
    view.patch, view.block = 5, 1
    row = view.row()
    strongest = int(np.abs(row).argmax())
    bundle, about = view._repr_mimebundle_()
    alt = about["image/png"]["alt"]
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert "what moves the patch in row 2, column 1 in token mixing of block 1" in alt
    assert f"row {strongest // 2}, column {strongest % 2}, with {row[strongest]:+.3f}." in alt
    written = [float(text.get_text()) for text in view.picture().axes[1].texts]
    assert written == pytest.approx(row, abs=0.0051)
    view.direction, view.show = "writes", "composed"
    assert "what the patch in row 2, column 1 moves in token mixing of blocks 0 to 1, composed" in view.picture().alt


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="shows an MlpMixer, not a Linear"):
        explore_influence(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    "given, said",
    [
        (None, r"uint8 \(N, 3, 21, 14\), not uint8 \(10, 1, 28, 28\)"),
        (torch.zeros(1, 3, 21, 14), r"not float32 \(1, 3, 21, 14\)"),
        (torch.zeros(3, 21, 14, dtype=torch.uint8), r"not uint8 \(3, 21, 14\)"),
        (np.zeros((0, 3, 21, 14), np.uint8), r"not uint8 \(0, 3, 21, 14\)"),
    ],
    ids=["MNIST", "float", "one image", "no image"],
)
def test_images_that_the_model_cannot_take_are_refused(model, given, said):
    with pytest.raises(ValueError, match=said):
        explore_influence(model, given)


def test_more_images_than_can_be_sent_are_refused(model):
    with pytest.raises(ValueError, match=r"\b20000 images\b.*give at most \d+ of them"):
        explore_influence(model, torch.zeros(20000, 3, 21, 14, dtype=torch.uint8))


def test_patches_too_many_for_any_block_are_refused(monkeypatch, model, images):
    monkeypatch.setattr("mixer_utils.widgets.base.MOST_SENT", 1000)
    with pytest.raises(ValueError, match="6 patches are too many for this view"):
        explore_influence(model, images)
