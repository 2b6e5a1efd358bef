"""What holds for any size, and for any file however it was damaged."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_data import FILES, put
from torch.nn import functional as F

from mixer_utils import (
    CheckpointError,
    DataError,
    MlpBlock,
    MlpMixer,
    PatchEmbedding,
    load_checkpoint,
    load_dataset,
    load_official_npz,
    save_checkpoint,
)
from mixer_utils.checkpoints import read_tensors, write_tensors
from mixer_utils.model import TokenMixing

AUTHORS = Path(__file__).parent / "fixtures" / "authors_tiny.npz"


def examples(count):
    """The same examples on every run, on every machine, however long one takes."""
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


# --- any configuration that can work -----------------------------------------------------------------------


@st.composite
def configurations(draw):
    """Keyword arguments of an MlpMixer that can be built."""
    P, rows, columns = (draw(st.integers(1, 4)) for _ in range(3))
    sizes = {name: draw(st.integers(1, 7)) for name in
             ("in_channels", "num_classes", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim")}  # fmt: skip
    square = rows == columns and draw(st.booleans())
    return dict(
        image_size=rows * P if square else (rows * P, columns * P), patch_size=P, num_blocks=draw(st.integers(1, 3)),
        stochastic_depth=draw(st.floats(0, 0.95)), gelu=draw(st.sampled_from(["tanh", "erf"])), **sizes,
    )  # fmt: skip


def with_random_weights(config, std=0.5):
    torch.manual_seed(0)
    model = MlpMixer(**config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model, torch.randn(4, *model.image_shape)


def assert_same_weights(model, other):
    assert list(model.state_dict()) == list(other.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@given(config=configurations())
@examples(60)
def test_a_mixer_of_any_size_learns_a_step_and_comes_back_from_its_file(config):
    torch.manual_seed(0)
    model = MlpMixer(**config)
    images = torch.randn(4, *model.image_shape)
    labels = torch.arange(4) % config["num_classes"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # the head starts at zero: only in the second step does anything else learn
        logits = model(images)
        assert logits.shape == (4, config["num_classes"])
        loss = F.cross_entropy(logits, labels)
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        optimizer.step()
    assert config["num_classes"] == 1 or model.head.bias.any()

    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(model, Path(folder) / "model.safetensors")
        again = load_checkpoint(Path(folder) / "model.safetensors")
    assert_same_weights(again, model)
    assert [block.drop for block in again.blocks] == [block.drop for block in model.blocks]
    assert torch.equal(again(images), model.eval()(images))


@given(config=configurations(), order=st.randoms(use_true_random=False))
@examples(40)
def test_shuffling_patches_with_the_matching_token_weights_never_changes_the_logits(config, order):
    model, images = with_random_weights(config)
    before = model(images)
    P, (B, channels, H, W) = config["patch_size"], images.shape
    shuffle = torch.tensor(order.sample(range(model.num_tokens), model.num_tokens))
    patches = images.reshape(B, channels, H // P, P, W // P, P).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)[:, shuffle]
    shuffled = patches.unflatten(1, (H // P, W // P)).permute(0, 3, 1, 4, 2, 5).reshape(images.shape)
    with torch.no_grad():
        for block in model.blocks:
            mlp = block.token_mixing
            mlp.dense_0.weight.copy_(mlp.dense_0.weight[:, shuffle])
            mlp.dense_1.weight.copy_(mlp.dense_1.weight[shuffle])
            mlp.dense_1.bias.copy_(mlp.dense_1.bias[shuffle])
    torch.testing.assert_close(model(shuffled), before, rtol=1e-3, atol=1e-3)


@given(config=configurations(), cut=st.integers(1, 3))
@examples(30)
def test_a_batch_in_two_parts_gives_the_logits_of_the_whole(config, cut):
    model, images = with_random_weights(config)
    parts = torch.cat([model(images[:cut]), model(images[cut:])])
    torch.testing.assert_close(parts, model(images), rtol=1e-4, atol=1e-4)


small = st.integers(1, 9)


@given(B=small, S=small, C=small, hidden=small, gelu=st.sampled_from(["tanh", "erf"]))
@examples(40)
def test_token_mixing_is_an_mlp_block_on_the_transposed_tensor(B, S, C, hidden, gelu):
    torch.manual_seed(0)
    token_mixing, mlp, x = TokenMixing(S, hidden, gelu), MlpBlock(S, hidden, gelu), torch.randn(B, S, C)
    mlp.load_state_dict(token_mixing.state_dict())
    torch.testing.assert_close(token_mixing(x), mlp(x.mT).mT, rtol=0, atol=1e-5)


@given(B=small, channels=small, P=small, rows=small, columns=small, C=small)
@examples(40)
def test_the_stem_is_a_convolution_whose_stride_is_its_kernel(B, channels, P, rows, columns, C):
    torch.manual_seed(0)
    stem, images = PatchEmbedding(channels, P, C), torch.randn(B, channels, rows * P, columns * P)
    expected = F.conv2d(images, stem.proj.weight, stem.proj.bias, stride=P).flatten(2).mT
    torch.testing.assert_close(stem(images), expected, rtol=0, atol=1e-5)


# --- any configuration that cannot work --------------------------------------------------------------------

SIZES = ("in_channels", "patch_size", "num_classes", "num_blocks", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim")
no_size = st.one_of(st.integers(max_value=0), st.booleans(), st.floats(), st.text(), st.none(), st.binary(),
                    st.lists(st.integers(1, 9)))  # fmt: skip
no_pair = st.one_of(
    no_size.filter(lambda value: not isinstance(value, list | bytes | str) or len(value) != 2),
    st.tuples(st.just(28), no_size),
    st.tuples(no_size, st.just(28)),
    st.tuples(no_size, no_size),
)
no_chance = st.one_of(st.floats().filter(lambda value: not 0 <= value < 1), st.integers(min_value=1),
                      st.integers(max_value=-1), st.text(), st.none(), st.lists(st.floats()))  # fmt: skip
no_gelu = st.one_of(st.text().filter(lambda text: text not in ("tanh", "erf")), st.none(), st.booleans(), st.floats())

wrong_arguments = st.one_of(
    st.tuples(st.sampled_from(SIZES), no_size),
    st.tuples(st.just("image_size"), no_pair),
    st.tuples(st.just("stochastic_depth"), no_chance),
    st.tuples(st.just("gelu"), no_gelu),
)


@given(config=configurations(), wrong=wrong_arguments)
@example(config={}, wrong=("image_size", math.nan))
@example(config={}, wrong=("hidden_dim", 10**400 * -1))
@examples(200)
def test_an_argument_that_cannot_work_is_always_refused_by_its_name(config, wrong):
    name, value = wrong
    with pytest.raises(ValueError, match=f"^{name}.* is .*: it must be "):
        MlpMixer(**{**config, name: value})


@given(config=configurations(), sides=st.tuples(*[st.integers(1, 60)] * 2), P=st.integers(2, 80))
@examples(40)
def test_a_patch_that_does_not_divide_both_sides_is_always_refused(config, sides, P):
    if sides[0] % P == sides[1] % P == 0:
        sides = (sides[0], sides[1] + 1)
    with pytest.raises(ValueError, match=f"^patch_size {P} does not divide the image_size {sides[0]} x {sides[1]}: "):
        MlpMixer(**{**config, "image_size": sides, "patch_size": P})


# --- any damage to any file --------------------------------------------------------------------------------


def truncated(raw, random):
    return raw[: random.integers(len(raw))]


def with_a_flipped_bit(raw, random):
    position = random.integers(len(raw))
    return raw[:position] + bytes([raw[position] ^ 1 << random.integers(8)]) + raw[position + 1 :]


def with_a_zeroed_block(raw, random):
    start, stop = sorted(random.integers(len(raw), size=2))
    return raw[:start] + bytes(stop - start) + raw[stop:]


def with_a_block_twice(raw, random):
    start, stop = sorted(random.integers(len(raw), size=2))
    return raw[:stop] + raw[start:stop] + raw[stop:]


def with_garbage_after_it(raw, random):
    return raw + random.bytes(random.integers(1, 300))


def emptied(raw, random):
    return b""


DAMAGE = [truncated, with_a_flipped_bit, with_a_zeroed_block, with_a_block_twice, with_garbage_after_it, emptied]


def data_set(name):
    """The tiny files of a data set, and a function that puts them in place and gives all values that load from them."""

    def prepare(folder, monkeypatch):
        monkeypatch.setenv("MIXER_DATA", str(folder))

        def load(files):
            put(folder / name, files)
            data = load_dataset(name)
            return [data.train.images, data.train.labels, data.test.images, data.test.labels]

        return FILES[name](monkeypatch), load

    return prepare


def one_file(write, read):
    """The same for a file that ``write`` makes."""

    def prepare(folder, monkeypatch):
        path = folder / "file"
        write(path)

        def load(files):
            put(folder, files)
            return read(path)

        return {"file": path.read_bytes()}, load

    return prepare


def write_model(path):
    save_checkpoint(with_random_weights(dict(hidden_dim=6, num_blocks=2, patch_size=7))[0], path, note="Zürich")


def read_model(path):
    model = load_checkpoint(path)
    return [repr(model.about), *model.state_dict().values()]


def write_resume(path):
    """A model's tensors, its optimizer's and a history, as training keeps them."""
    model, images = with_random_weights(dict(hidden_dim=6, num_blocks=1, patch_size=7))
    optimizer = torch.optim.AdamW(model.parameters())
    model(images).sum().backward()
    optimizer.step()
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for key, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.0.{key}.{name}": tensor for name, tensor in values.items()}
    write_tensors(path, tensors, {"seed": 0, "history": {"steps": {"loss": [2.3, 1.9]}, "epochs": {}}})


def read_resume(path):
    tensors, about = read_tensors(path)
    return [repr(about), *(x for name in sorted(tensors) for x in (name, tensors[name]))]


def write_official(path):
    path.write_bytes(AUTHORS.read_bytes())


def write_official_compressed(path):
    with open(path, "wb") as file, np.load(AUTHORS) as arrays:
        np.savez_compressed(file, **arrays)


def read_official(path):
    model = load_official_npz(path, (24, 18))
    return [repr(model.config), *model.state_dict().values()]


KINDS = {
    "mnist": (data_set("mnist"), DataError),
    "fashion-mnist": (data_set("fashion-mnist"), DataError),
    "cifar10": (data_set("cifar10"), DataError),
    "model.safetensors": (one_file(write_model, read_model), CheckpointError),
    "resume.safetensors": (one_file(write_resume, read_resume), CheckpointError),
    "the authors' .npz": (one_file(write_official, read_official), CheckpointError),
    "a compressed .npz": (one_file(write_official_compressed, read_official), CheckpointError),
}


def same(values, others):
    return len(values) == len(others) and all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(values, others, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_in_one_sentence_or_loads_what_it_did(kind, tmp_path, monkeypatch):
    prepare, error_type = KINDS[kind]
    files, load = prepare(tmp_path, monkeypatch)
    original = load(files)
    random = np.random.default_rng(0)
    refused = 0
    for number in range(30):  # of each of seven kinds: 210 in all
        name = sorted(files)[random.integers(len(files))]
        damage = DAMAGE[number % len(DAMAGE)]
        damaged = damage(files[name], random)
        what = f"{name} {damage.__name__}, number {number}"
        try:
            found = load({**files, name: damaged})
        except error_type as error:  # any other error fails the test
            refused += 1
            assert "\n" not in str(error) and str(tmp_path) in str(error), what
        else:
            assert same(found, original), what
            assert damaged == files[name] or kind.endswith(".npz"), what  # zip files have bytes that nobody reads
    assert refused >= 15
