import io

import ipywidgets
import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from mixer_utils import MlpMixer, create_mixer, load_pretrained, mixing
from mixer_utils.widgets import base, explore_mixing
from mixer_utils.widgets.base import MOST_SENT


@pytest.fixture(scope="module")
def model():
    return load_pretrained("mnist")


@pytest.fixture
def view(model):
    return explore_mixing(model)


def sent(packed):
    return np.frombuffer(packed["bytes"], packed["dtype"]).reshape(packed["shape"])


def bytes_sent(value):
    if isinstance(value, dict):
        return sum(map(bytes_sent, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(bytes_sent, value))
    return len(value) if isinstance(value, bytes) else 8


def test_the_browser_gets_every_weight_of_token_mixing(view, model):
    maps = sent(view.data["sides"][0]["maps"])
    for block, (reads, writes) in zip(model.blocks, maps, strict=True):
        np.testing.assert_array_equal(reads, block.token_mixing.dense_0.weight.detach().numpy())
        np.testing.assert_array_equal(writes, block.token_mixing.dense_1.weight.detach().numpy().T)


def test_beside_it_stand_the_weights_that_the_shipped_model_s_training_began_with(view, model):
    with torch.random.fork_rng():
        torch.manual_seed(model.about["seed"])
        began = MlpMixer(**model.config)
    assert [side["title"] for side in view.data["sides"]] == ["trained", "before training"]
    np.testing.assert_array_equal(sent(view.data["sides"][1]["maps"]), mixing.unit_maps(began).numpy())


def test_opening_a_view_draws_no_random_numbers_of_the_caller_s(model):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    explore_mixing(model)
    assert torch.equal(torch.rand(2), expected)


def test_units_are_sorted_by_norm_by_frequency_by_opposite_pairs_and_by_number(view):
    for block in range(view.data["num_blocks"]):
        view.block = block
        for side, maps in enumerate(view.maps):
            reads = maps[block, 0]
            found = {}
            for sort in ["norm", "frequency", "pairs", "number"]:
                view.sort = sort
                found[sort] = view.order(side)
                assert sorted(found[sort]) == list(range(len(reads)))
                np.testing.assert_array_equal(sent(view.data["sides"][side]["orders"][sort])[block], found[sort])
            assert (np.diff(np.linalg.norm(reads, axis=1)[found["norm"]]) <= 0).all()
            assert (np.diff(mixing.frequency(reads, (4, 4))[found["frequency"]]) >= 0).all()
            directions = reads / np.linalg.norm(reads, axis=1, keepdims=True)
            cosines = directions @ directions.T
            assert cosines[tuple(found["pairs"][:2])] == pytest.approx(cosines.min(), abs=1e-6)
            assert list(found["number"]) == list(range(len(reads)))


def test_another_model_can_stand_beside_it(tiny_mixer):
    one, other = tiny_mixer(0), tiny_mixer(1)
    view = explore_mixing(one, before=other)
    assert [side["title"] for side in view.data["sides"]] == ["this model", "the other model"]
    np.testing.assert_array_equal(sent(view.data["sides"][1]["maps"]), mixing.unit_maps(other).numpy())


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


def test_b_16_sends_at_most_10_mb():
    model = create_mixer("B/16", num_classes=10)
    view = explore_mixing(model)
    assert 7_000_000 < bytes_sent(view.get_state()["data"]) <= MOST_SENT
    halves = sent(view.data["sides"][0]["maps"])
    assert halves.dtype == np.float16 and halves.shape == (12, 2, 384, 196)
    np.testing.assert_array_equal(halves[3, 0], model.blocks[3].token_mixing.dense_0.weight.detach().half().numpy())
    assert len(view.data["sides"]) == 2


def test_of_a_model_too_large_for_two_the_model_alone_is_sent_and_then_nothing(monkeypatch, tiny_mixer):
    model = tiny_mixer()  # 80 weights: 2 bytes each, and what goes with them
    monkeypatch.setattr(base, "MOST_SENT", 300)
    view = explore_mixing(model)
    assert [side["title"] for side in view.data["sides"]] == ["this model"]
    assert sent(view.data["sides"][0]["maps"]).dtype == np.float16
    assert view.picture().alt
    with pytest.raises(ValueError, match=r"\b80 weights\b.*leave before= away"):
        explore_mixing(model, before=tiny_mixer(1))
    monkeypatch.setattr(base, "MOST_SENT", 100)
    with pytest.raises(ValueError, match="^This model's token mixing has 80 weights"):
        explore_mixing(model)


@pytest.mark.parametrize("trait, value, message", [
    ("block", 4, "block is 4: it must be from 0 to 3."), ("block", -1, "block is -1: it must be from 0 to 3."),
    ("unit", 64, "unit is 64: it must be from 0 to 63."), ("patch", 16, "patch is 16: it must be from 0 to 15."),
])  # fmt: skip
def test_a_trait_out_of_range_is_refused_and_stays_as_it_was(view, trait, value, message):
    with pytest.raises(traitlets.TraitError) as caught:
        setattr(view, trait, value)
    assert str(caught.value) == message and getattr(view, trait) == 0


def test_sort_and_scale_take_their_names_alone(view):
    with pytest.raises(traitlets.TraitError, match="norm"):
        view.sort = "beauty"
    with pytest.raises(traitlets.TraitError, match="shared"):
        view.scale = "all"


def test_its_picture_has_alt_text_that_says_what_is_seen(view):
    view.block, view.sort = 2, "frequency"
    picture = view.picture()
    assert picture.alt.startswith(
        "What the first 48 of 64 units of block 2's token mixing read from the patches, sorted by "
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
    assert {"block", "sort", "scale", "compare", "unit", "patch"} <= set(view.keys)  # all are synchronised
