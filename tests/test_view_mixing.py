import io

import ipywidgets
import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from mixer_utils import MlpMixer, create_mixer, load_pretrained, mixing
from mixer_utils.widgets import base, explore_mixing
from mixer_utils.widgets.base import MOST_SENT, unpacked
from mixer_utils.widgets.mixing import mixing_data


@pytest.fixture(scope="module")
def model():
    return load_pretrained("mnist")


@pytest.fixture
def view(model):
    return explore_mixing(model)


def bytes_sent(value):
    if isinstance(value, dict):
        return sum(map(bytes_sent, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(bytes_sent, value))
    return len(value) if isinstance(value, bytes) else 8


def test_the_browser_gets_every_weight_of_token_mixing(view, model):
    maps = unpacked(view.data["sides"][0]["maps"])
    for block, (reads, writes) in zip(model.blocks, maps, strict=True):
        np.testing.assert_array_equal(reads, block.token_mixing.dense_0.weight.detach().numpy())
        np.testing.assert_array_equal(writes, block.token_mixing.dense_1.weight.detach().numpy().T)


def test_what_the_switch_shows_are_the_weights_that_the_shipped_model_s_training_began_with(view, model):
    with torch.random.fork_rng():
        torch.manual_seed(model.about["seed"])
        began = MlpMixer(**model.config)
    assert [side["title"] for side in view.data["sides"]] == ["trained", "before training"]
    np.testing.assert_array_equal(unpacked(view.data["sides"][1]["maps"]), mixing.unit_maps(began).numpy())


def test_opening_a_view_draws_no_random_numbers_of_the_caller_s(model):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    explore_mixing(model)
    assert torch.equal(torch.rand(2), expected)


def test_units_are_sorted_by_structure_norm_frequency_opposite_pairs_and_number(view):
    assert view.sort == "structure"
    for block in range(view.data["num_blocks"]):
        view.block = block
        reads = view.maps[0][block, 0]
        found = {}
        for sort in ["structure", "norm", "frequency", "pairs", "number"]:
            view.sort = sort
            found[sort] = view.order()
            assert sorted(found[sort]) == list(range(len(reads)))
            np.testing.assert_array_equal(unpacked(view.data["orders"][sort])[block], found[sort])
        assert (np.diff(mixing.morans_i(reads, (4, 4))[found["structure"]]) <= 0).all()
        assert (np.diff(np.linalg.norm(reads, axis=1)[found["norm"]]) <= 0).all()
        assert (np.diff(mixing.frequency(reads, (4, 4))[found["frequency"]]) >= 0).all()
        directions = reads / np.linalg.norm(reads, axis=1, keepdims=True)
        cosines = directions @ directions.T
        assert cosines[tuple(found["pairs"][:2])] == pytest.approx(cosines.min(), abs=1e-6)
        assert list(found["number"]) == list(range(len(reads)))


def test_it_opens_on_the_unit_with_the_most_structure(view):
    structure = mixing.morans_i(view.maps[0][0, 0], (4, 4))
    assert view.unit == structure.argmax() and view.block == 0 and view.before is False


def test_before_training_units_keep_their_places(view):
    order = view.order().tolist()
    view.before = True
    assert view.order().tolist() == order
    drawn = next(ax for ax in view.picture().axes if ax.get_images()).get_images()[0].get_array()
    np.testing.assert_array_equal(drawn, view.maps[1][0, 0, order[0]].reshape(4, 4))
    assert "read from the patches (before training), sorted by structure" in view.picture().alt


def test_another_view_can_have_the_data(model, view):
    assert mixing_data(model) == view.data
    with pytest.raises(ValueError, match=r"^This view shows an MlpMixer, not a str: "):
        mixing_data(model, before="mnist")


def test_another_model_can_be_switched_to(tiny_mixer):
    one, other = tiny_mixer(0), tiny_mixer(1)
    view = explore_mixing(one, before=other)
    assert [side["title"] for side in view.data["sides"]] == ["this model", "the other model"]
    np.testing.assert_array_equal(unpacked(view.data["sides"][1]["maps"]), mixing.unit_maps(other).numpy())


def test_what_cannot_be_shown_is_said_in_one_sentence(tiny_mixer):
    model = tiny_mixer()
    with pytest.raises(ValueError, match=r"MlpMixer, not a Linear: give "):
        explore_mixing(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"^This view shows an MlpMixer, not a str: "):
        explore_mixing(model, before="mnist")
    with pytest.raises(
        ValueError, match=r"cannot be compared, \(2, 5\) blocks and units on \(2, 2\) patches and \(3, 5\)"
    ):
        explore_mixing(model, before=tiny_mixer(num_blocks=3))
    with pytest.raises(ValueError, match=r"\(2, 2\) patches and \(2, 5\) on \(4, 1\): give a model of the same sizes"):
        explore_mixing(model, before=tiny_mixer(image_size=(56, 14)))


def test_b_16_is_sent_with_its_weights_before_training_in_half_the_bytes():
    model = create_mixer("B/16", num_classes=10)
    data = mixing_data(model)
    assert 7_000_000 < bytes_sent(data) <= MOST_SENT and len(data["sides"]) == 2
    halves = unpacked(data["sides"][0]["maps"])
    assert halves.dtype == np.float16 and halves.shape == (12, 2, 384, 196)
    np.testing.assert_array_equal(halves[3, 0], model.blocks[3].token_mixing.dense_0.weight.detach().half().numpy())


def test_l_16_is_sent_with_its_weights_before_training_in_steps_of_each_map():
    model = create_mixer("L/16", num_classes=10, hidden_dim=1, channels_mlp_dim=1)
    data = mixing_data(model)
    assert 9_000_000 < bytes_sent(data) <= MOST_SENT and len(data["sides"]) == 2
    assert data["sides"][0]["maps"]["dtype"] == "int8"
    reads = model.blocks[23].token_mixing.dense_0.weight.detach().numpy()
    found = unpacked(data["sides"][0]["maps"])[23, 0]
    assert (abs(found - reads) <= 0.51 / 127 * abs(reads).max(1, keepdims=True)).all()


def test_of_a_model_too_large_for_two_the_model_alone_is_sent_and_then_nothing(monkeypatch, tiny_mixer):
    model = tiny_mixer()  # 80 weights in 20 maps: 120 bytes in steps, 160 in half precision
    for most, dtype, count in [(800, "float32", 2), (400, "float16", 2), (300, "int8", 2), (200, "float16", 1)]:
        monkeypatch.setattr(base, "MOST_SENT", most)
        view = explore_mixing(model)
        assert [side["maps"]["dtype"] for side in view.data["sides"]] == [dtype] * count
    assert view.picture().alt
    with pytest.raises(traitlets.TraitError, match="^before is True: this model was sent alone"):
        view.before = True
    with pytest.raises(ValueError, match=r"\b80 weights\b.*leave before= away"):
        explore_mixing(model, before=tiny_mixer(1))
    monkeypatch.setattr(base, "MOST_SENT", 100)
    with pytest.raises(ValueError, match="^This model's token mixing has 80 weights"):
        explore_mixing(model)


def test_maps_in_steps_are_what_they_were_but_for_half_a_step():
    maps = np.float32([[1, -127, 63.4], [0, 0, 0], [1e-3, -2e-3, 5e-4]])
    sent = base.packed_maps(maps, "int8")
    assert np.frombuffer(sent["bytes"], "int8").tolist() == [1, -127, 63, 0, 0, 0, 64, -127, 32]
    assert len(sent["bytes"]) + len(sent["scales"]["bytes"]) == base.maps_bytes(maps.shape, "int8") == 15
    np.testing.assert_allclose(unpacked(sent), [[1, -127, 63], [0, 0, 0], [1e-3, -2e-3, 5e-4]], rtol=0.01)
    assert base.maps_bytes((2, 3, 4), "float16") == len(base.packed_maps(np.zeros((2, 3, 4)), "float16")["bytes"]) == 48


@pytest.mark.parametrize("trait, value, message", [
    ("block", 4, "block is 4: it must be from 0 to 3."), ("block", -1, "block is -1: it must be from 0 to 3."),
    ("unit", 64, "unit is 64: it must be from 0 to 63."), ("patch", 16, "patch is 16: it must be from 0 to 15."),
])  # fmt: skip
def test_a_trait_out_of_range_is_refused_and_stays_as_it_was(view, trait, value, message):
    was = getattr(view, trait)
    with pytest.raises(traitlets.TraitError) as caught:
        setattr(view, trait, value)
    assert str(caught.value) == message and getattr(view, trait) == was


def test_sort_and_scale_take_their_names_alone(view):
    with pytest.raises(traitlets.TraitError, match="structure"):
        view.sort = "beauty"
    with pytest.raises(traitlets.TraitError, match="shared"):
        view.scale = "all"


def test_its_picture_has_alt_text_that_says_what_is_seen(view):
    view.block, view.sort = 2, "frequency"
    picture = view.picture()
    assert picture.alt.startswith(
        "What the first 48 of 64 units of block 2's token mixing read from the patches (trained), sorted by "
    )
    drawn = [ax for ax in picture.axes if ax.get_images()]
    assert [ax.get_title() for ax in drawn] == [str(unit) for unit in view.order()[:48]]
    first = view.maps[0][2, 0, view.order()[0]].reshape(4, 4)
    np.testing.assert_array_equal(drawn[0].get_images()[0].get_array(), first)


def test_where_no_widget_can_be_shown_the_picture_stands_in(view):
    data, metadata = view._repr_mimebundle_()
    assert {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"} <= set(data)
    assert metadata["image/png"] == {"alt": view.picture().alt} and data["text/plain"] == view.picture().alt
    assert Image.open(io.BytesIO(data["image/png"])).size[0] > 500


def test_its_text_is_the_same_at_every_run(view):
    assert repr(view) == "MixingView(mixing)"


def test_it_composes_with_other_widgets(view):
    slider = ipywidgets.IntSlider(0, 0, 3)
    ipywidgets.jslink((slider, "value"), (view, "block"))
    ipywidgets.link((slider, "value"), (view, "block"))
    heard = []
    view.observe(lambda change: heard.append(change["new"]), "block")
    slider.value = 3
    assert view.block == 3 and heard == [3]
    assert {"block", "sort", "scale", "before", "unit", "patch"} <= set(view.keys)  # all are synchronised
