"""The picture of the network: what it sends, what Python computes for it, and what its traits take."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from traitlets import TraitError

from mixer_utils import load_pretrained, mixing
from mixer_utils.model import create_mixer
from mixer_utils.widgets import base, explore
from mixer_utils.widgets.base import unpacked
from mixer_utils.widgets.network import bytes_in


@pytest.fixture(scope="module")
def model():
    return load_pretrained("mnist")


@pytest.fixture
def view(model):
    return explore(model)


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def small(tiny_mixer, images):
    """A view of a small untrained model of four patches."""
    return explore(tiny_mixer(), images)


@pytest.fixture
def there(tiny_mixer, images, monkeypatch):
    """The same where its weights are too many to send, so that Python computes what is shown."""
    monkeypatch.setattr(base, "MOST_SENT", 9_000)
    return explore(tiny_mixer(), images)


def by_the_model(model, view):
    """The model's own stages of the view's image, those it names and what enters and leaves every mixing, by hooks."""
    stages, mixed = {}, {}
    hooks = []
    for i, block in enumerate(model.blocks):
        for name in ("norm_0", "token_mixing", "norm_1", "channel_mixing"):
            keep = lambda module, given, out, key=(i, name): mixed.update({key: out[0]})  # noqa: E731
            hooks.append(getattr(block, name).register_forward_hook(keep))
    mean, std = (np.array(view.data[name])[:, None, None] for name in ("mean", "std"))
    image = torch.from_numpy((view.image() / 255 - mean) / std).float()[None]
    with torch.no_grad():
        model.eval()(image, stages)
    for hook in hooks:
        hook.remove()
    return {name: stage[0] for name, stage in stages.items()}, mixed


def parts_sent(view):
    """What the browser was sent in ``computed``, unpacked."""
    return {
        name: {key: unpacked(array) for key, array in part.items()}
        for name, part in view.computed.items()
        if name != "of"
    }


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-4)


# --- the numbers ------------------------------------------------------------------------------------------------------


def test_the_stages_are_the_model_s_own(model, view):
    view.hidden = [2, 5]
    trace = view.trace()
    stages, mixed = by_the_model(model, view)
    close(trace["stem"], stages["stem"])
    close(trace["last"], stages["pre_head_layer_norm"])
    close(trace["mean"], stages["pre_logits"])
    close(trace["logits"], stages["logits"])
    close(view.probabilities, stages["logits"].softmax(0))
    for i in range(4):
        close(trace["blocks"][i], stages[f"block_{i}"])
        close(trace["normed"][i], mixed[i, "norm_0"])
        close(trace["token_mixing"][i], mixed[i, "token_mixing"])
        close(trace["normed_between"][i], mixed[i, "norm_1"])
        close(trace["channel_mixing"][i], mixed[i, "channel_mixing"])
        close(trace["between"][i] + trace["channel_mixing"][i], stages[f"block_{i}"])


def test_python_answers_with_what_is_shown_and_it_is_the_model_s(there):
    assert "mixer" not in there.data
    model = there.model
    there.set_trait("block", 1)
    for show in ("norm", "channel"):
        there.show, there.channel, there.patch, there.hidden = show, 7, 3, [1]
        stages, mixed = by_the_model(model, there)
        squares = (lambda x: x.norm(dim=1)) if show == "norm" else (lambda x: x[:, 7])
        overview = parts_sent(there)["overview"]
        close(overview["stem"], squares(stages["stem"]))
        for i in range(2):
            close(overview["token_mixing"][i], squares(mixed[i, "token_mixing"]))
            close(overview["channel_mixing"][i], squares(mixed[i, "channel_mixing"]))
            close(overview["blocks"][i], squares(stages[f"block_{i}"]))
            close(overview["between"][i], squares(stages[f"block_{i}"] - mixed[i, "channel_mixing"]))
        close(overview["mean"], stages["pre_logits"])
        close(overview["logits"], stages["logits"])


def test_the_stem_is_answered_with_the_filter_and_the_channel(there):
    there.stage, there.channel = "stem", 4
    stages, _ = by_the_model(there.model, there)
    found = parts_sent(there)["stem"]
    close(found["filter"], there.model.stem.proj.weight[4].flatten().detach())
    close(found["values"], stages["stem"][:, 4])
    pixels = (there.image()[0, 14:, :14] / 255 - there.data["mean"][0]) / there.data["std"][0]  # of patch 2
    close(pixels.ravel() @ found["filter"] + found["bias"][0], found["values"][2])


def test_token_mixing_is_answered_with_a_channel_and_with_who_moves_whom(there):
    there.stage, there.block, there.channel, there.patch = "token mixing", 1, 5, 2
    _, mixed = by_the_model(there.model, there)
    found = parts_sent(there)["token mixing"]
    close(found["values"], mixed[1, "norm_0"][:, 5])
    close(found["added"], mixed[1, "token_mixing"][:, 5])
    mean, std = there.data["mean"][0], there.data["std"][0]
    influence = mixing.influence(there.model, torch.from_numpy((there.image() / 255 - mean) / std).float())[1]
    close(found["moves"], influence[2])
    close(found["moved"], influence[:, 2])


def test_all_units_of_a_channel_with_the_bias_are_what_token_mixing_adds(there):
    """What the pane says of one unit, summed over all of them, is the map beside it."""
    there.stage, there.block, there.channel = "token mixing", 0, 3
    found = parts_sent(there)["token mixing"]
    maps, biases = unpacked(there.data["mixing"]["sides"][0]["maps"])[0], unpacked(there.data["biases"])[0]
    active = there.model.blocks[0].token_mixing.act(torch.tensor(maps[0] @ found["values"] + biases))
    bias = there.model.blocks[0].token_mixing.dense_1.bias.detach().numpy()
    np.testing.assert_allclose(active.numpy() @ maps[1] + bias, found["added"], atol=2e-3)  # maps in half precision


def test_channel_mixing_is_answered_with_a_token_and_a_hidden_unit(there):
    there.stage, there.block, there.patch, there.hidden_unit = "channel mixing", 1, 1, 9
    _, mixed = by_the_model(there.model, there)
    found = parts_sent(there)["channel mixing"]
    close(found["normed"], mixed[1, "norm_1"][1])
    close(found["added"], mixed[1, "channel_mixing"][1])
    mlp = there.model.blocks[1].channel_mixing
    close(mlp.act(torch.tensor(found["reads"] @ found["normed"] + found["bias"])), found["hidden"][[9]])
    close(found["over"][1], found["hidden"][9])
    close(found["writes"], mlp.dense_1.weight[:, 9].detach())
    close(mlp.dense_1.weight.detach().numpy() @ found["hidden"] + mlp.dense_1.bias.detach().numpy(), found["added"])


def test_the_mean_is_that_of_the_normalised_tokens(there):
    there.stage, there.channel = "mean", 8
    stages, _ = by_the_model(there.model, there)
    found = parts_sent(there)
    close(found["mean"]["values"], stages["pre_head_layer_norm"][:, 8])
    close(found["mean"]["values"].mean(), found["overview"]["mean"][8])


def test_the_patches_votes_and_the_bias_add_up_to_the_logit(there):
    there.stage = "head"
    stages, _ = by_the_model(there.model, there)
    for chosen in range(10):
        there.class_index = chosen
        found = parts_sent(there)["head"]
        close(found["votes"].sum() + found["bias"][0], stages["logits"][chosen])
        weight = there.model.head.weight[chosen].detach()
        close(found["votes"], stages["pre_head_layer_norm"] @ weight / 4)


def test_what_several_traits_change_at_once_is_computed_once(there):
    answers = []
    there.observe(lambda change: answers.append(change["new"]["of"]), "computed")
    there.set_state({"stage": "head", "class_index": 3, "patch": 1, "hidden": [0]})
    assert answers == [there.computed["of"]]
    assert answers[0]["class_index"] == 3 and answers[0]["stage"] == "head"


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_a_model_that_fits_is_sent_whole_and_nothing_is_computed_for_it(view, model):
    assert {tuple(one["shape"]) for one in view.data["mixer"]["tensors"].values()} == {
        tuple(one.shape) for one in model.state_dict().values()
    }
    assert view.computed == {} and bytes_in(view.data) < base.MOST_SENT
    assert len(view.data["mixing"]["sides"]) == 2


@pytest.mark.parametrize("name", ["S/32", "B/16"])
def test_a_large_model_opens_with_all_its_maps_and_python_s_numbers(name):
    torch.manual_seed(0)
    model = create_mixer(name, num_classes=20)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    view = explore(model)
    config = model.config
    assert "mixer" not in view.data and bytes_in(view.data) < base.MOST_SENT
    S, D_S, C, D_C = model.num_tokens, config["tokens_mlp_dim"], config["hidden_dim"], config["channels_mlp_dim"]
    assert view.data["mixing"]["sides"][0]["maps"]["shape"] == [config["num_blocks"], 2, D_S, S]
    view.pixels = np.random.default_rng(0).integers(0, 256, 3 * 224 * 224, dtype=np.uint8).tobytes()
    stages, mixed = by_the_model(model, view)
    last = config["num_blocks"] - 1
    view.stage, view.block = "channel mixing", last
    found = parts_sent(view)
    close(found["overview"]["blocks"][last], stages[f"block_{last}"].norm(dim=1))
    close(found["overview"]["logits"], stages["logits"])
    close(found["channel mixing"]["normed"], mixed[last, "norm_1"][view.patch])
    close(found["channel mixing"]["added"], mixed[last, "channel_mixing"][view.patch])
    assert found["channel mixing"]["hidden"].shape == (D_C,) and found["channel mixing"]["over"].shape == (S,)
    view.stage = "token mixing"
    close(parts_sent(view)["token mixing"]["values"], mixed[last, "norm_0"][:, view.channel])
    view.stage = "head"
    close(parts_sent(view)["head"]["votes"].sum() + parts_sent(view)["head"]["bias"][0],
          stages["logits"][view.class_index])  # fmt: skip
    assert found["overview"]["mean"].shape == (C,)
    assert view.data["note"] == "There are no images to start from, as the model is not for those of mnist."


def test_too_many_images_are_refused_in_one_sentence(tiny_mixer, images, monkeypatch):
    monkeypatch.setattr(base, "MOST_SENT", 9_000)
    with pytest.raises(ValueError, match=r"^20 images are too many to send: give at most 8 of them\.$"):
        explore(tiny_mixer(), images[:1].expand(20, -1, -1, -1))


# --- what is shown first, examples ------------------------------------------------------------------------------------


def test_what_is_seen_first_is_the_first_test_image_and_no_zero(view, model, mnist):
    zero = int((mnist.test.labels == 0).nonzero()[0])
    assert view.start == 0 and view.pixels == mnist.test.images[zero].numpy().tobytes()
    assert view.class_index == 0 == int(np.argmax(view.probabilities))
    trace = view.trace()
    assert trace["blocks"][-1][view.patch].norm() == trace["blocks"][-1].norm(dim=1).max()
    assert abs(trace["normed"][0][view.patch, view.channel]) == trace["normed"][0][view.patch].abs().max()
    labels = [start["label"] for start in view.data["starts"]]
    assert labels[0] == f"0 (test image {zero})" and len(labels) > 30
    assert {start["group"] for start in view.data["starts"]} == {
        "Test images", "The model's worst mistakes in 2,000 test images"}  # fmt: skip


def test_images_of_one_s_own_are_offered_by_number_and_one_is_loaded(small, images):
    assert [start["label"] for start in small.data["starts"]] == ["image 0", "image 1", "image 2"]
    small.start = 2
    assert small.pixels == images[2].numpy().tobytes()
    small.pixels = bytes(784)
    assert small.start == -1


def test_colour_and_oblong_images_are_taken(tiny_mixer):
    images = torch.randint(0, 256, (2, 3, 12, 20), dtype=torch.uint8)
    model = tiny_mixer(image_size=(12, 20), in_channels=3, patch_size=4, num_classes=7)
    view = explore(model, images)
    view.hidden = [6]  # row 1, column 1
    assert (view.image()[:, 4:8, 4:8] == 0).all() and (view.image() == 0).sum() >= 48
    stages, _ = by_the_model(model, view)
    close(view.probabilities, stages["logits"].softmax(0))
    assert view.data["grid"] == [3, 5] and view.picture().alt.startswith("An image, 1 of its patches hidden,")


def test_the_view_keeps_the_model_as_it_was(tiny_mixer, images):
    model = tiny_mixer()
    view = explore(model, images)
    before = view.probabilities
    with torch.no_grad():
        model.head.weight.zero_()
    view.stages = {}
    close(view.trace()["logits"].softmax(0), before)


# --- traits and errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trait", "value", "sentence"),
    [
        ("pixels", bytes(5), "^pixels holds 5 bytes: it must hold 784, a value from 0 to 255 for each of 28 × 28 p"),
        ("hidden", [0, 4], "^hidden holds 4: a patch must be from 0 to 3.$"),
        ("start", 3, "^start is 3: it must be from 0 to 2, or -1 for a drawing.$"),
        ("block", 2, "^block is 2: it must be from 0 to 1.$"),
        ("unit", 5, "^unit is 5: it must be from 0 to 4.$"),
        ("hidden_unit", 20, "^hidden_unit is 20: it must be from 0 to 19.$"),
        ("channel", 12, "^channel is 12: it must be from 0 to 11.$"),
        ("class_index", 10, "^class_index is 10: it must be from 0 to 9.$"),
        ("patch", 4, "^patch is 4: it must be from 0 to 3.$"),
        ("stage", "blocks", "'stage' trait"),
        ("show", "sum", "'show' trait"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence_and_changes_nothing(small, trait, value, sentence):
    before = getattr(small, trait)
    with pytest.raises(TraitError, match=sentence):
        setattr(small, trait, value)
    assert getattr(small, trait) == before


def test_pixels_in_colour_say_how_many_channels(tiny_mixer):
    model = tiny_mixer(in_channels=3)
    view = explore(model, torch.zeros((1, 3, 28, 28), dtype=torch.uint8))
    with pytest.raises(TraitError, match=r"must hold 2352, .* for each of 28 × 28 pixels in each of 3 channels\.$"):
        view.pixels = bytes(784)


def test_without_another_model_to_compare_with_before_is_refused(tiny_mixer, images, monkeypatch):
    monkeypatch.setattr(base, "MOST_SENT", 5_000)
    view = explore(tiny_mixer(), images)
    assert len(view.data["mixing"]["sides"]) == 1
    with pytest.raises(
        TraitError, match="^before is True: this model was sent alone, with nothing to compare it with.$"
    ):
        view.before = True


def test_what_is_no_mixer_and_images_of_another_shape_are_refused(tiny_mixer, images):
    with pytest.raises(ValueError, match="^This view shows an MlpMixer, not a Linear: give "):
        explore(torch.nn.Linear(2, 2))
    with pytest.raises(
        ValueError, match=r"^The model takes images uint8 \(N, 1, 28, 28\), not float32 \(3, 1, 28, 28\)"
    ):
        explore(tiny_mixer(), images.float())
    with pytest.raises(ValueError, match="^The two models' units cannot be compared"):
        explore(tiny_mixer(), images, before=tiny_mixer(patch_size=7))


def test_what_the_browser_sends_is_taken_as_it_comes(view):
    example = view.examples[5].tobytes()
    view.set_state({"pixels": memoryview(example), "start": 5})
    assert view.pixels == example and view.start == 5
    view.set_state({"pixels": memoryview(bytes(784)), "start": -1})
    assert view.pixels == bytes(784) and view.start == -1


# --- where nothing live is --------------------------------------------------------------------------------------------


def test_the_picture_shows_the_image_the_tokens_and_the_answer(view):
    view.start = 20  # a 6
    data, metadata = view._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == (
        "An image on its way through a Mixer of 4 blocks, from left to right: the image, a small map of its "
        f"{view.data['num_patches']} tokens (norm) after the stem and after every block, and the answer as bars: 6 "
        f"with a probability of {view.probabilities[6]:.1%}."
    )
    assert Image.open(io.BytesIO(data["image/png"])).width > 500
    axes = view.picture().axes
    assert len(axes) == 7
    np.testing.assert_array_equal(axes[0].images[0].get_array(), view.image()[0])
    expected = view.trace()["blocks"][3].norm(dim=1).numpy()
    np.testing.assert_allclose(np.ravel(axes[5].images[0].get_array()), expected, rtol=1e-6)
    np.testing.assert_allclose([bar.get_width() for bar in axes[6].patches], view.probabilities)


def test_of_many_blocks_the_picture_shows_the_first_and_last_two(tiny_mixer, images):
    axes = explore(tiny_mixer(num_blocks=9), images).picture().axes
    assert [ax.get_title() for ax in axes[1:-1]] == ["stem", "block 0", "block 1", "block 7", "block 8"]
