"""Models that people change: another head, other layers, compiled, in half precision, sized by NumPy's numbers."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from told import assert_told
from torch import nn
from traitlets import TraitError

from mixer_utils import (
    MlpMixer,
    Recipe,
    Snapshots,
    Split,
    at_higher_resolution,
    create_mixer,
    evaluate,
    exercises,
    load_checkpoint,
    load_image_folder,
    save_checkpoint,
    save_official_npz,
    train,
    with_classes,
)
from mixer_utils.checkpoints import check_loadable, write_tensors
from mixer_utils.evaluation import predict_logits
from mixer_utils.training import TrainingError
from mixer_utils.widgets import draw_digit

TINY = Recipe("tiny", dataset="digits", epochs=1, batch_size=50, validation=60)


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def five_digits(few_digits):
    """The few digits that are below 5, as a data set of five classes."""

    def below(split):
        kept = split[split.labels < 5]
        return Split(kept.images, kept.labels)

    return dataclasses.replace(
        few_digits, train=below(few_digits.train), test=below(few_digits.test), class_names=tuple("01234")
    )


def run(model, data, **options):
    return train(TINY, data=data, model=model, device="cpu", progress=False, **options)


# --- another head ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("put_by_hand", [False, True])
def test_a_copy_with_other_classes_has_a_zero_head_and_everything_else(put_by_hand, tiny_mixer):
    model = tiny_mixer(gelu="erf").double().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if put_by_hand:
        model.head = nn.Linear(12, 5).double()
    copy = with_classes(model, 5)
    assert copy.config == {**model.config, "num_classes": 5} and model.config["num_classes"] == 10
    assert (copy.head.weight == 0).all() and copy.head.weight.shape == (5, 12)
    assert (copy.head.bias == 0).all() and copy.head.bias.shape == (5,)
    for name, tensor in copy.state_dict().items():
        assert tensor.dtype == torch.float64
        assert name.startswith("head.") or torch.equal(tensor, before[name]), name
    assert not copy.training and with_classes(model.train(), 5).training
    copy.stem.proj.weight.data.zero_()
    assert torch.equal(model.stem.proj.weight, before["stem.proj.weight"])  # nothing is shared
    assert with_classes(tiny_mixer(), 10).head.weight.abs().max() == 0  # as many classes may be others


def test_a_copy_with_other_classes_is_trained_saved_and_loaded(tiny_mixer, five_digits, tmp_path):
    model, history = run(with_classes(tiny_mixer(), 5), five_digits, out=tmp_path)
    assert history.steps["loss"][0] == pytest.approx(np.log(5), abs=1e-5)  # all classes are equally likely
    again = load_checkpoint(tmp_path / "model.safetensors")
    assert again.config["num_classes"] == 5 and same_weights(again, model)
    assert again.about["class_names"] == list("01234")


@pytest.mark.parametrize("count", [0, -1, 2.5, "5", None, True])
def test_a_number_of_classes_that_cannot_be_is_refused(count, tiny_mixer):
    with pytest.raises(ValueError) as error:
        with_classes(tiny_mixer(), count)
    assert_told(error.value, f"num_classes is {count!r}", "whole number, 1 or more")


def test_a_copy_is_made_of_a_mixer_alone(tiny_mixer):
    with pytest.raises(ValueError) as error:
        with_classes(nn.Linear(2, 2), 5)
    assert_told(error.value, "for an MlpMixer", "is a Linear")
    model = tiny_mixer()
    model.blocks[1] = nn.Identity()
    with pytest.raises(ValueError) as error:
        with_classes(model, 5)
    assert_told(error.value, "blocks.1.norm_0.weight is missing, expected (12,)", "and 9 more")


# --- what is not as the configuration says -----------------------------------------------------------------


def replaced_block(model):
    model.blocks[1] = type(model.blocks[1])(4, 12, 7, 20)


def dropped_bias(model):
    model.blocks[0].channel_mixing.dense_1 = nn.Linear(20, 12, bias=False)


def more_parameters(model):
    model.blocks[0].scale = nn.Parameter(torch.ones(12))


def removed_block(model):
    del model.blocks[1]


def head_in_a_sequence(model):
    model.head = nn.Sequential(nn.Dropout(), nn.Linear(12, 10))


def another_activation(model):
    model.blocks[0].token_mixing.act = nn.ReLU()


def another_gelu(model):
    model.blocks[1].channel_mixing.act.approximate = "none"


def another_eps(model):
    model.pre_head_layer_norm.eps = 1e-5


def a_layer_more(model):
    model.dropout = nn.Dropout()


CHANGES = {
    replaced_block: ("blocks.1.token_mixing.dense_0.weight is (7, 4), expected (5, 4)", "torch.save"),
    dropped_bias: ("blocks.0.channel_mixing.dense_1.bias is missing, expected (12,)", "torch.save"),
    more_parameters: ("blocks.0.scale does not belong there", "torch.save"),
    removed_block: ("blocks.1.norm_0.weight is missing, expected (12,)", "and 9 more", "torch.save"),
    head_in_a_sequence: ("head.weight is missing, expected (10, 12)", "head.1.weight does not belong", "torch.save"),
    another_activation: ("blocks.0.token_mixing.act is ReLU()", "expected GELU(approximate='tanh')", "torch.save"),
    another_gelu: ("blocks.1.channel_mixing.act is GELU(approximate='none')", "torch.save"),
    another_eps: ("pre_head_layer_norm is LayerNorm((12,), eps=1e-05", "torch.save"),
    a_layer_more: ("dropout does not belong there", "torch.save"),
}


def five_by_hand(model):
    model.head = nn.Linear(12, 5)


HEAD = ("head.weight is (5, 12), expected (10, 12)", "with_classes(model, 5)", 'model.config["num_classes"] = 5')


@pytest.mark.parametrize(
    "change, told", [*CHANGES.items(), (five_by_hand, HEAD)], ids=lambda x: getattr(x, "__name__", "")
)
def test_a_model_that_could_not_be_loaded_again_is_not_saved(change, told, tiny_mixer, tmp_path):
    model = tiny_mixer()
    check_loadable(model)
    change(model)
    for save in (save_checkpoint, save_official_npz):
        with pytest.raises(ValueError) as error:
            save(model, tmp_path / "file")
        assert_told(error.value, *told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change, told", [*CHANGES.items(), (five_by_hand, HEAD)], ids=lambda x: getattr(x, "__name__", "")
)
def test_it_is_not_trained_for_a_folder_either(change, told, tiny_mixer, few_digits, five_digits, tmp_path):
    model = tiny_mixer()
    change(model)
    model.register_forward_pre_hook(lambda *_: pytest.fail("it was trained"))
    with pytest.raises(ValueError) as error:
        run(model, five_digits if change is five_by_hand else few_digits, out=tmp_path)
    assert_told(error.value, *told)
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_is_to_be_kept_is_saved_once_the_configuration_says_so(tiny_mixer, tmp_path):
    model = tiny_mixer()
    model.head = nn.Linear(12, 5)
    model.config["num_classes"] = 5  # as the sentence says
    save_checkpoint(model, tmp_path / "model.safetensors")
    assert same_weights(load_checkpoint(tmp_path / "model.safetensors"), model)


def test_a_file_with_a_head_put_there_by_hand_that_an_older_release_wrote_is_read(tiny_mixer, tmp_path):
    model = tiny_mixer()
    model.head = nn.Linear(12, 5)
    write_tensors(tmp_path / "old.safetensors", model.state_dict(), {"model": model.config})
    again = load_checkpoint(tmp_path / "old.safetensors")
    assert again.config["num_classes"] == again.about["model"]["num_classes"] == 5 and same_weights(again, model)


def test_looking_for_changes_takes_no_random_numbers(tiny_mixer):
    model = tiny_mixer()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    check_loadable(model)
    with_classes(model, 5)
    assert torch.rand(1) == expected


def test_something_else_than_a_mixer_is_not_saved(tmp_path):
    with pytest.raises(ValueError) as error:
        save_checkpoint(nn.Linear(2, 2), tmp_path / "model.safetensors")
    assert_told(error.value, "of an MlpMixer", "is a Linear", "torch.save(model.state_dict(), path)")


# --- started from ------------------------------------------------------------------------------------------


def test_a_run_from_the_weights_of_another_says_so_and_its_model_is_told_by_its_own_run(few_digits, tmp_path):
    run(None, few_digits, out=tmp_path / "first", seed=3)
    model = load_checkpoint(tmp_path / "first" / "model.safetensors")
    data = dataclasses.replace(few_digits, class_names=tuple("abcdefghij"))
    run(model, data, out=tmp_path / "second")
    about = load_checkpoint(tmp_path / "second" / "model.safetensors").about
    assert about["started_from"]["seed"] == 3 and about["started_from"]["steps"] == 4
    assert about["started_from"]["recipe"] == dataclasses.asdict(TINY) and about["seed"] == 0
    assert model.about["class_names"] == tuple("abcdefghij")  # no longer what the first file said
    assert "started_from" not in load_checkpoint(tmp_path / "first" / "model.safetensors").about


# --- compiled ----------------------------------------------------------------------------------------------


def compiled(model):
    return torch.compile(model, backend="eager")


def test_a_compiled_model_is_trained_and_saved_as_the_one_inside(tiny_mixer, few_digits, tmp_path):
    expected, expected_history = run(tiny_mixer(), few_digits)
    inside, calls = tiny_mixer(), []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    snapshots = Snapshots(3)
    model, history = run(torch.compile(inside, backend=backend), few_digits, out=tmp_path, snapshots=snapshots)
    assert model is inside and same_weights(model, expected)
    assert history.steps == expected_history.steps
    assert calls  # what the caller compiled is what was run
    assert same_weights(load_checkpoint(tmp_path / "model.safetensors"), expected)
    assert snapshots.steps == [0, 1, 4]


def test_a_compiled_model_is_evaluated_saved_and_copied_like_the_one_inside(tiny_mixer, few_digits, tmp_path):
    model = tiny_mixer()
    wrapped = compiled(model)
    assert evaluate(wrapped, few_digits).metrics() == evaluate(model, few_digits).metrics()
    save_checkpoint(wrapped, tmp_path / "model.safetensors")
    assert same_weights(load_checkpoint(tmp_path / "model.safetensors"), model)
    save_official_npz(wrapped, tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as arrays:
        assert "head/kernel" in arrays and len(arrays) == len(model.state_dict())
    assert with_classes(wrapped, 5).config["num_classes"] == 5
    assert same_weights(at_higher_resolution(wrapped, 2), at_higher_resolution(model, 2))


def test_a_model_whose_blocks_are_compiled_is_saved_under_its_own_names(tiny_mixer, tmp_path):
    model = tiny_mixer()
    model.blocks[0] = compiled(model.blocks[0])
    model.head = compiled(model.head)
    save_checkpoint(model, tmp_path / "model.safetensors")
    assert same_weights(load_checkpoint(tmp_path / "model.safetensors"), tiny_mixer())


def test_a_model_that_cannot_be_asked_for_its_truth_is_taken_all_the_same(few_digits):
    class Odd(nn.Sequential):
        """bool() of it asks for a length."""

        def __len__(self):
            raise TypeError("no length")

        def forward(self, x):
            return self._modules["1"](self._modules["0"](x))

    model = Odd(nn.Flatten(), nn.Linear(784, 10))
    assert run(model, few_digits)[0] is model


def test_without_a_compiler_one_sentence_says_what_to_do(tiny_mixer, few_digits, tmp_path):
    def no_compiler(graph, inputs):
        raise RuntimeError("No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')")

    with pytest.raises(TrainingError) as error:
        run(torch.compile(tiny_mixer(), backend=no_compiler), few_digits, out=tmp_path)
    told = (
        "torch.compile does not work here",
        "No working C++ compiler",
        "(g++ or clang)",
        "compile=True",
        "--compile",
    )
    assert_told(error.value, *told)
    assert list(tmp_path.iterdir()) == []


# --- half precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, far", [("half", 0.01), ("bfloat16", 0.05), ("double", 1e-5)])
def test_a_model_in_another_precision_answers_as_in_single(kind, far, tiny_mixer, few_digits):
    expected = predict_logits(tiny_mixer(), few_digits.test.images, few_digits)
    model = getattr(tiny_mixer(), kind)()
    found = predict_logits(model, few_digits.test.images, few_digits)
    assert found.dtype == torch.float32 and expected.std() > 0.2
    assert (found - expected).abs().max() < far
    assert evaluate(model, few_digits).loss == pytest.approx(evaluate(tiny_mixer(), few_digits).loss, abs=far)
    assert next(model.parameters()).dtype != torch.float32  # the model is left as it was


def test_a_model_in_half_precision_is_not_trained(tiny_mixer, few_digits):
    with pytest.raises(ValueError) as error:
        run(tiny_mixer().half(), few_digits)
    assert_told(error.value, "torch.float16", "float32 is trained", "model.float()")


# --- NumPy's numbers ---------------------------------------------------------------------------------------


def test_a_mixer_of_numpy_s_numbers_is_the_same_and_can_be_saved(tiny_mixer, tmp_path):
    sizes = dict(image_size=28, in_channels=1, patch_size=14, num_classes=10, num_blocks=2, hidden_dim=12,
                 tokens_mlp_dim=5, channels_mlp_dim=20)  # fmt: skip
    for image_size in (np.int64(28), (np.int32(28), np.int64(28)), np.array([28, 28])):
        given = {name: np.int64(size) for name, size in sizes.items()} | {"image_size": image_size}
        model = MlpMixer(**given, stochastic_depth=np.float32(0.5))
        assert model.config == tiny_mixer(stochastic_depth=0.5).config | {"image_size": model.config["image_size"]}
        json.dumps(model.config)  # Python's own, or this raises
        assert model.num_tokens == 4 and model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
        save_checkpoint(model, tmp_path / "model.safetensors", seed=np.int64(3), accuracy=np.float32(0.5))
        again = load_checkpoint(tmp_path / "model.safetensors")
        assert same_weights(again, model) and (again.about["seed"], again.about["accuracy"]) == (3, 0.5)
    assert create_mixer("mnist/7", num_classes=np.int64(3)).config["num_classes"] == 3


@pytest.mark.parametrize("value", [np.float64(64.0), np.bool_(True), True, "64", np.int64(0), np.int64(-3)])
def test_what_is_no_whole_number_is_still_refused(value):
    with pytest.raises(ValueError) as error:
        MlpMixer(hidden_dim=value)
    assert_told(error.value, f"hidden_dim is {value!r}", "whole number, 1 or more")


def test_a_recipe_of_numpy_s_numbers_is_the_same_run(few_digits, tmp_path):
    recipe = dataclasses.replace(
        TINY, epochs=np.int64(1), batch_size=np.int32(50), learning_rate=np.float64(0.015), rotation=np.int64(0),
        clip_norm=np.float32(1), validation=np.int64(60),
    )  # fmt: skip
    assert recipe == TINY
    assert {type(value) for value in dataclasses.asdict(recipe).values()} == {int, float, str}
    _, expected = train(TINY, data=few_digits, seed=3, device="cpu", progress=False)
    _, found = train(recipe, data=few_digits, seed=np.int64(3), device="cpu", progress=False, out=tmp_path)
    assert found.steps == expected.steps
    assert load_checkpoint(tmp_path / "model.safetensors").about["seed"] == 3


@pytest.mark.parametrize("change, told", [
    ({"epochs": 2.5}, ("epochs is 2.5", "whole number")),
    ({"batch_size": "64"}, ("batch_size is '64'", "whole number")),
    ({"shift": True}, ("shift is True", "whole number")),
    ({"learning_rate": None}, ("learning_rate is None", "a number")),
    ({"model": 7}, ("model is 7", "a text")),
])  # fmt: skip
def test_a_recipe_s_values_are_of_their_kind(change, told):
    with pytest.raises(ValueError) as error:
        dataclasses.replace(TINY, **change)
    assert_told(error.value, *told)


def test_other_whole_numbers_may_be_numpy_s_too(tiny_mixer, few_digits, tmp_path):
    assert Snapshots(np.int64(5)).count == 5
    model = tiny_mixer()
    assert same_weights(at_higher_resolution(model, np.int64(2)), at_higher_resolution(model, 2))
    images = few_digits.test.images
    assert torch.equal(
        predict_logits(model, images, few_digits, np.int64(7)), predict_logits(model, images, few_digits, 7)
    )
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "x.png").write_bytes(b"")
    assert load_image_folder(tmp_path, randaugment=np.int64(3)).train.randaugment == 3


def test_a_view_s_traits_and_a_guess_may_be_numpy_s_too(tiny_mixer, monkeypatch, tmp_path, capsys):
    view = draw_digit(tiny_mixer(), data=False)
    view.patch = np.int64(3)
    view.hidden = [np.int64(1), np.int32(2)]
    view.start = np.int64(-1)
    assert (view.patch, view.hidden, view.start) == (3, [1, 2], -1)
    assert {type(value) for value in (view.patch, view.start, *view.hidden)} == {int}
    with pytest.raises(TraitError):
        view.patch = np.int64(4)
    with pytest.raises(TraitError):
        view.patch = 1.5
    monkeypatch.setenv("MIXER_EXERCISES", str(tmp_path / "record.json"))
    monkeypatch.setattr(exercises.record, "SESSION", {"exercises": {}, "predictions": {}})
    exercises.predict("05.2", np.int64(2))
    assert json.loads((tmp_path / "record.json").read_text())["predictions"]["05.2"] == {"guess": 2}


def test_a_seed_that_is_no_whole_number_is_refused(few_digits):
    with pytest.raises(ValueError) as error:
        train(TINY, data=few_digits, seed=1.5)
    assert_told(error.value, "seed is 1.5", "whole number")
