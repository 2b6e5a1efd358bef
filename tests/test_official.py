import argparse
import errno
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from told import assert_told

from mixer_utils import (
    CONFIGS,
    CheckpointError,
    load_checkpoint,
    load_official_npz,
    load_timm,
    save_checkpoint,
    save_official_npz,
)

AUTHORS = Path(__file__).parent / "fixtures" / "authors_tiny.npz"  # random weights in the authors' layout
AUTHORS_IO = Path(__file__).parent / "fixtures" / "authors_tiny_io.npz"  # images, and their flax module's logits


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def assert_same(model, other):
    assert list(model.state_dict()) == list(other.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


# --- the authors' files, read ------------------------------------------------------------------------------


def authors_arrays():
    with np.load(AUTHORS) as arrays:
        return dict(arrays)


def official_refusal(path, image_size=(24, 18)):
    with pytest.raises(CheckpointError) as error:
        load_official_npz(path, image_size)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_authors_weights_give_the_authors_logits():
    model = load_official_npz(AUTHORS, (24, 18))
    with np.load(AUTHORS_IO) as file:
        images, logits = file["images"], file["logits"]
    found = model(torch.from_numpy(images).permute(0, 3, 1, 2)).detach().numpy()
    assert np.std(logits) > 1
    np.testing.assert_allclose(found, logits, rtol=0, atol=2e-5)


def test_every_size_is_read_off_the_authors_arrays():
    model = load_official_npz(AUTHORS, [18, 24])  # 12 patches either way
    assert model.config == dict(
        image_size=[18, 24], in_channels=3, patch_size=6, num_classes=6, num_blocks=2, hidden_dim=18, tokens_mlp_dim=9,
        channels_mlp_dim=30, stochastic_depth=0.0, gelu="tanh",
    )  # fmt: skip
    assert not model.training and all(parameter.requires_grad for parameter in model.parameters())


def test_the_authors_weights_can_be_saved_as_ours(tmp_path):
    model = load_official_npz(AUTHORS, (24, 18))
    save_checkpoint(model, tmp_path / "model.safetensors")
    again, images = load_checkpoint(tmp_path / "model.safetensors"), torch.randn(2, 3, 24, 18)
    assert torch.equal(again(images), model(images))


def test_arrays_stored_by_columns_are_the_same_arrays(tmp_path):
    np.savez(tmp_path / "columns.npz", **{name: np.asfortranarray(x) for name, x in authors_arrays().items()})
    rows, columns = (load_official_npz(path, (24, 18)) for path in (AUTHORS, tmp_path / "columns.npz"))
    assert_same(rows, columns)


@pytest.mark.parametrize(
    "image_size, printed", [(28, "28 x 28"), (18, "18 x 18"), ((24, 24), "24 x 24"), ((36, 13), "36 x 13")]
)
def test_images_that_do_not_give_the_files_tokens_are_refused_with_a_size_that_does(image_size, printed):
    assert_told(
        official_refusal(AUTHORS, image_size),
        AUTHORS,
        "12 patches of 6 x 6 pixels",
        f"image_size {printed} ",
        "such as (18, 24)",
    )


@pytest.mark.parametrize("image_size", [0, -24, "24", None, (24,), (24, 18.0)])
def test_an_image_size_that_no_image_has_is_refused_by_name(image_size):
    with pytest.raises(ValueError, match="^image_size.*: it must be a whole number"):
        load_official_npz(AUTHORS, image_size)


WRONG_ARRAYS = {
    "one is missing": (
        lambda x: x.pop("MixerBlock_1/LayerNorm_1/scale"),
        " with 2 blocks: MixerBlock_1/LayerNorm_1/scale is missing, expected (18,).",
    ),
    "two are missing": (
        lambda x: (x.pop("head/bias"), x.pop("MixerBlock_0/token_mixing/Dense_1/kernel")),
        " with 2 blocks: MixerBlock_0/token_mixing/Dense_1/kernel is missing, expected (9, 12); "
        "head/bias is missing, expected (6,).",
    ),
    "the stem is missing": (
        lambda x: x.pop("stem/kernel"), ": stem/kernel is missing, expected (P, P, in_channels, C)."),
    "the kernel of the head is a vector": (
        lambda x: x.update({"head/kernel": np.zeros(18, np.float32)}),
        ": head/kernel is (18,), expected (C, classes).",
    ),
    "one is too many": (
        lambda x: x.update({"cls": np.zeros(1, np.float32)}), " with 2 blocks: cls does not belong there."),
    "a kernel is not transposed": (
        lambda x: x.update({"MixerBlock_1/channel_mixing/Dense_0/kernel": np.zeros((30, 18), np.float32)}),
        " with 2 blocks: MixerBlock_1/channel_mixing/Dense_0/kernel is (30, 18), expected (18, 30).",
    ),
    "patches are not square": (
        lambda x: x.update({"stem/kernel": np.zeros((6, 5, 3, 18), np.float32)}),
        " with 2 blocks: stem/kernel is (6, 5, 3, 18), expected (6, 6, 3, 18).",
    ),
    "a whole block is missing": (
        lambda x: [x.pop(name) for name in list(x) if name.startswith("MixerBlock_0")],
        ": MixerBlock_0/token_mixing/Dense_0/kernel is missing, expected (S, D_S).",
    ),
    "a vision transformer": (
        lambda x: (x.clear(), x.update({"Transformer/posembed_input/pos_embedding": np.zeros((1, 2, 3), np.float32)})),
        ": stem/kernel is missing, expected (P, P, in_channels, C).",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", WRONG_ARRAYS)
def test_arrays_of_another_model_are_refused_by_name(how, tmp_path):
    change, told = WRONG_ARRAYS[how]
    arrays, path = authors_arrays(), tmp_path / "other.npz"
    change(arrays)
    np.savez(path, **arrays)
    assert official_refusal(path) == f"{path} is no checkpoint of the authors' Mixer{told}"


def test_of_many_wrong_arrays_five_are_named_and_the_rest_counted(tmp_path):
    arrays = {name: x for name, x in authors_arrays().items() if not name.startswith("MixerBlock_1/")}
    np.savez(tmp_path / "other.npz", **arrays, **{"MixerBlock_2/cls": np.zeros(1, np.float32)})
    sentence = official_refusal(tmp_path / "other.npz")
    assert sentence.count(" is missing, expected ") == 5 and sentence.endswith("; and 8 more.")


@pytest.mark.parametrize("array", [np.zeros(6, np.int32), np.zeros(6, bool), np.zeros(0, np.float32)])
def test_arrays_that_hold_no_floating_point_numbers_are_refused(array, tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, **{**authors_arrays(), "head/bias": array})
    what = f"head/bias.npy is {array.dtype} {array.shape}"
    assert_told(
        official_refusal(path), f"{path} is no checkpoint of the authors' Mixer", what, "floating-point numbers"
    )


def test_a_missing_npz_and_a_file_of_another_kind_are_told(tmp_path, tiny_mixer):
    missing, saved = tmp_path / "Mixer-B_16.npz", tmp_path / "model.safetensors"
    save_checkpoint(tiny_mixer(), saved)
    assert_told(official_refusal(missing), f"no checkpoint {missing}:", "check the path")
    assert_told(official_refusal(saved), f"{saved} is a safetensors file, expected an .npz file", "load_checkpoint")


def test_an_array_that_claims_to_be_of_a_terabyte_is_refused_before_memory_is_asked_for(tmp_path):
    header = io.BytesIO()
    claim = {"descr": "<f4", "fortran_order": False, "shape": (2**38,)}
    np.lib.format.write_array_header_1_0(header, claim)
    path = tmp_path / "huge.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("head/bias.npy", header.getvalue() + bytes(24))
    assert_told(official_refusal(path), f"{path} is an .npz file, but", "size 6 into shape (274877906944,)", "fetch it")


def test_nothing_in_an_npz_is_ever_unpickled(tmp_path):
    path, sprung = tmp_path / "trap.npz", tmp_path / "sprung"
    np.savez(path, **{**authors_arrays(), "head/bias": np.array([Trap(sprung)], dtype=object)})
    assert "head/bias.npy is object (1,), expected floating-point numbers" in official_refusal(path)
    assert not sprung.exists()


# --- the authors' files, written ---------------------------------------------------------------------------


def test_the_authors_arrays_come_back_bit_for_bit_under_their_names_and_with_their_axes(tmp_path):
    save_official_npz(load_official_npz(AUTHORS, (24, 18)), tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as file:
        again = dict(file)
    assert set(again) == set(authors_arrays())
    for name, array in authors_arrays().items():
        assert again[name].dtype == np.float32 and again[name].flags.c_contiguous, name
        np.testing.assert_array_equal(again[name], array, err_msg=name)


@pytest.mark.parametrize(
    "changes", [{}, dict(image_size=(28, 42), in_channels=3, num_classes=1), dict(num_blocks=11, patch_size=28)]
)
def test_a_model_of_ours_comes_back_from_the_authors_format(changes, tiny_mixer, tmp_path):
    model = tiny_mixer(**changes)
    save_official_npz(model, tmp_path / "model.npz")
    again = load_official_npz(tmp_path / "model.npz", model.config["image_size"])
    assert again.config == model.config
    assert_same(model, again)


def test_a_model_that_would_come_back_as_another_is_not_written(tiny_mixer, tmp_path):
    for model, told in [
        (tiny_mixer(gelu="erf"), ('gelu="tanh"', '"erf"', "use save_checkpoint")),
        (tiny_mixer().double(), ("float32", "torch.float64", "call .float()")),
    ]:
        with pytest.raises(ValueError) as error:
            save_official_npz(model, tmp_path / "model.npz")
        assert_told(error.value, *told)
    assert list(tmp_path.iterdir()) == []


def test_where_the_disk_is_full_the_old_npz_stays(tiny_mixer, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "model.npz"
    save_official_npz(tiny_mixer(), path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="^Cannot write .*model.npz \\(No space left on device\\): "):
        save_official_npz(tiny_mixer(seed=1), path)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


# --- timm's weights ----------------------------------------------------------------------------------------


def timm_names(model):
    """The tensors of one of our models under the names that timm gives them, as copies."""
    names = {"stem.proj": "stem.proj", "pre_head_layer_norm": "norm", "head": "head"}
    for i in range(len(model.blocks)):
        names |= {
            f"blocks.{i}.norm_0": f"blocks.{i}.norm1",
            f"blocks.{i}.norm_1": f"blocks.{i}.norm2",
            f"blocks.{i}.token_mixing.dense_0": f"blocks.{i}.mlp_tokens.fc1",
            f"blocks.{i}.token_mixing.dense_1": f"blocks.{i}.mlp_tokens.fc2",
            f"blocks.{i}.channel_mixing.dense_0": f"blocks.{i}.mlp_channels.fc1",
            f"blocks.{i}.channel_mixing.dense_1": f"blocks.{i}.mlp_channels.fc2",
        }
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return {
        f"{theirs}.{kind}": tensors[f"{ours}.{kind}"] for ours, theirs in names.items() for kind in ("weight", "bias")
    }


def timm_refusal(weights, image_size=28):
    with pytest.raises(CheckpointError) as error:
        load_timm(weights, image_size)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "image_size, in_channels, num_classes, sizes",
    [
        (32, 3, 10, dict(patch_size=8, embed_dim=24, num_blocks=3)),
        ((24, 36), 1, 2, dict(patch_size=6, embed_dim=16, num_blocks=2)),
        (16, 2, 1, dict(patch_size=4, embed_dim=8, num_blocks=4, mlp_ratio=(2.0, 3.0))),
    ],
)
def test_timms_weights_give_timms_logits(image_size, in_channels, num_classes, sizes):
    mlp_mixer = pytest.importorskip("timm.models.mlp_mixer")
    torch.manual_seed(0)
    theirs = mlp_mixer.MlpMixer(num_classes, image_size, in_channels, **sizes).eval()
    for name, parameter in theirs.named_parameters():  # the stem small, so that LayerNorm's eps counts
        std = 0.0005 if "stem" in name else 0.5
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=std)
    ours = load_timm(theirs.state_dict(), image_size)
    images = torch.randn(5, *ours.image_shape)
    expected = theirs(images)
    assert expected.std() > 0.3
    torch.testing.assert_close(ours(images), expected, rtol=0, atol=2e-5)
    for block in ours.blocks:
        block.token_mixing.act.approximate = block.channel_mixing.act.approximate = "tanh"
    assert (ours(images) - expected).abs().max() > 5e-5  # the other GELU would have been noticed


def test_timms_b16_is_the_papers_b16():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in timm.create_model("mixer_b16_224").state_dict().items()}
    model = load_timm({key: torch.zeros(1).expand(shape) for key, shape in shapes.items()})
    assert model.config == {**CONFIGS["B/16"], "stochastic_depth": 0.0, "gelu": "erf"}
    assert sum(parameter.numel() for parameter in model.parameters()) == 59_880_472


@pytest.mark.parametrize("changes", [{}, dict(image_size=(14, 42), in_channels=3, num_classes=7, num_blocks=11)])
def test_weights_under_timms_names_are_the_same_network(changes, tiny_mixer):
    model = tiny_mixer(gelu="erf", **changes).eval()
    again = load_timm(timm_names(model), model.config["image_size"])
    assert again.config == model.config and not again.training
    assert_same(model, again)


@pytest.mark.parametrize(
    "name, write", [("model.safetensors", safetensors.torch.save_file), ("pytorch_model.bin", torch.save),
                    ("model.pth", torch.save)]
)  # fmt: skip
def test_timms_weights_are_read_from_a_file(name, write, tiny_mixer, tmp_path):
    model = tiny_mixer(gelu="erf")
    write(timm_names(model), tmp_path / name)
    assert_same(model, load_timm(tmp_path / name, 28))
    assert_same(model, load_timm(str(tmp_path / name), 28))


def test_nothing_is_shared_with_the_state_dict_and_half_precision_becomes_single(tiny_mixer):
    weights = timm_names(tiny_mixer(gelu="erf").bfloat16())
    model = load_timm(weights, 28)
    assert model.head.weight.dtype == torch.float32
    assert torch.equal(model.head.weight, weights["head.weight"].float())
    weights = timm_names(tiny_mixer(gelu="erf"))
    model = load_timm(weights, 28)
    kept = model.head.weight.detach().clone()
    weights["head.weight"].zero_()
    assert torch.equal(model.head.weight, kept) and kept.any()


class Timms(torch.nn.Module):
    """A model with timm's names, where timm is not installed: only its state dict is asked for."""

    def __init__(self, tensors):
        super().__init__()
        self.tensors = tensors

    def state_dict(self):
        return self.tensors


def prefixed(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


# What timm's users have, made of a state dict.
FORMS = {
    "a model": Timms,
    "what timm's training saves": lambda x: {
        "epoch": 3, "arch": "mixer_b16_224", "state_dict": x, "optimizer": {"state": {}, "param_groups": []},
        "version": 2, "args": argparse.Namespace(lr=0.1, model="mixer_b16_224"), "metric": 81.5},
    "under model": lambda x: {"model": x, "optimizer": {}, "epoch": 3},
    "a model in a dict": lambda x: {"model": Timms(x)},
    "of DistributedDataParallel": lambda x: prefixed("module.", x),
    "of torch.compile": lambda x: prefixed("_orig_mod.", x),
    "of both, in a dict": lambda x: {"state_dict": prefixed("module._orig_mod.", x)},
    "of both the other way round": lambda x: prefixed("_orig_mod.module.", x),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_timms_weights_are_taken_in_every_form_that_their_users_have(form, tiny_mixer, tmp_path):
    model = tiny_mixer(gelu="erf")
    given = FORMS[form](timm_names(model))
    assert_same(model, load_timm(given, 28))
    if form not in ("a model", "a model in a dict"):  # these would be pickles of more than tensors
        torch.save(given, tmp_path / "checkpoint.pth.tar")
        assert_same(model, load_timm(tmp_path / "checkpoint.pth.tar", 28))


def test_weights_are_read_by_what_a_file_holds_not_by_its_name(tiny_mixer, tmp_path):
    model = tiny_mixer(gelu="erf")
    torch.save(timm_names(model), tmp_path / "model.safetensors")
    safetensors.torch.save_file(timm_names(model), tmp_path / "model.pth")
    assert_same(model, load_timm(tmp_path / "model.safetensors", 28))
    assert_same(model, load_timm(tmp_path / "model.pth", 28))


def without_head(model):
    return {name: tensor for name, tensor in timm_names(model).items() if not name.startswith("head.")}


def test_weights_without_a_head_get_a_new_one_where_its_classes_are_given(tiny_mixer, tmp_path):
    model = tiny_mixer(gelu="erf")
    sentence = timm_refusal(without_head(model))
    assert_told(sentence, "state dict has no head", "num_classes=0", "give load_timm the num_classes of a new one")
    for found in (load_timm(without_head(model), 28, num_classes=7), load_timm(timm_names(model), 28, num_classes=7)):
        assert found.config == {**model.config, "num_classes": 7} == found.about["model"]
        assert found.head.weight.shape == (7, 12) and not found.head.weight.any() and not found.head.bias.any()
        assert torch.equal(found.blocks[1].norm_1.weight, model.blocks[1].norm_1.weight) and not found.training
        save_checkpoint(found, tmp_path / "model.safetensors")
        assert_same(found, load_checkpoint(tmp_path / "model.safetensors"))
    assert_same(model, load_timm(timm_names(model), 28, num_classes=10))  # its own head stays where it fits
    for count in (0, "7"):
        with pytest.raises(ValueError) as error:
            load_timm(without_head(model), 28, num_classes=count)
        assert_told(error.value, f"num_classes is {count!r}", "whole number")


@pytest.mark.parametrize("given", [3, None, [torch.zeros(1)]])
def test_something_else_than_weights_is_refused(given):
    assert_told(timm_refusal(given), f"is a {type(given).__name__}", "timm's model, its state dict or a file")


WRONG_TENSORS = {
    "one is missing": (
        lambda x: x.pop("blocks.1.norm2.weight"),
        "checkpoint of timm's Mixer with 2 blocks: blocks.1.norm2.weight is missing, expected (12,).",
    ),
    "two are too many": (
        lambda x: x.update({"cls": torch.zeros(1), "blocks.0.ls1": torch.zeros(1)}),
        "checkpoint of timm's Mixer with 2 blocks: cls does not belong there; blocks.0.ls1 does not belong there.",
    ),
    "one is transposed": (
        lambda x: x.update({"blocks.0.mlp_tokens.fc2.weight": torch.zeros(5, 4)}),
        "checkpoint of timm's Mixer with 2 blocks: blocks.0.mlp_tokens.fc2.weight is (5, 4), expected (4, 5).",
    ),
    "half of the head is missing": (
        lambda x: x.pop("head.weight"),
        "checkpoint of timm's Mixer: head.weight is missing, expected (classes, C).",
    ),
    "one has no numbers": (
        lambda x: x.update({"blocks.0.mlp_tokens.fc1.weight": torch.zeros(5, 0)}),
        "checkpoint of timm's Mixer: blocks.0.mlp_tokens.fc1.weight is (5, 0), expected (D_S, S).",
    ),
    "one is of whole numbers": (
        lambda x: x.update({"head.bias": torch.arange(10)}),
        "state dict of timm's Mixer: head.bias is torch.int64, expected a tensor of floating-point numbers.",
    ),
    "the dict is one level down, under a name of its own": (
        lambda x: [inner := dict(x), x.clear(), x.update(weights=inner)],
        "state dict of timm's Mixer: weights is dict, expected a tensor of floating-point numbers.",
    ),
    "a name is a number": (
        lambda x: x.update({3: torch.zeros(1)}),
        "checkpoint of timm's Mixer with 2 blocks: 3 does not belong there.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", WRONG_TENSORS)
def test_tensors_of_another_model_are_refused_by_name(how, tiny_mixer, tmp_path):
    change, told = WRONG_TENSORS[how]
    weights = timm_names(tiny_mixer(gelu="erf"))
    change(weights)
    assert timm_refusal(weights) == f"The state dict is no {told}"
    torch.save(weights, tmp_path / "other.pth")
    assert timm_refusal(tmp_path / "other.pth") == f"{tmp_path / 'other.pth'} is no {told}"


def test_images_that_do_not_give_timms_tokens_are_refused_with_a_size_that_does(tiny_mixer):
    weights = timm_names(tiny_mixer(gelu="erf"))
    assert_told(
        timm_refusal(weights, 224), "state dict", "4 patches of 14 x 14 pixels", "224 x 224", "such as (28, 28)"
    )
    with pytest.raises(ValueError, match="^image_size.*: it must be a whole number"):
        load_timm(weights, 28.0)


def test_files_that_hold_no_state_dict_are_told(tmp_path):
    missing = tmp_path / "model.pth"
    assert timm_refusal(missing) == f"There is no checkpoint {missing}: fetch one, or check the path."
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "text.safetensors").write_text("not weights")
    for name in ("text.pth", "text.safetensors"):
        told = ("expected a file that torch.save wrote or a safetensors file", "give a file of weights")
        assert_told(timm_refusal(tmp_path / name), f"{tmp_path / name} is a text file", *told)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    assert_told(timm_refusal(tmp_path / "list.pth"), f"{tmp_path / 'list.pth'} is a list", "expected timm's model")


def test_nothing_in_timms_files_is_ever_unpickled(tiny_mixer, tmp_path):
    path, sprung = tmp_path / "trap.pth", tmp_path / "sprung"
    torch.save({**timm_names(tiny_mixer()), "trap": Trap(sprung)}, path)
    assert_told(
        timm_refusal(path), path, "holds more than tensors", "nothing is unpickled", "torch.save(model.state_dict"
    )
    assert not sprung.exists()
