import copy
import math

import pytest
import torch
from told import assert_told
from torch import nn

from mixer_utils import Recipe, baselines, optimizers
from mixer_utils.optimizers import Muon, make_optimizers, orthogonalized, set_learning_rate

SHAPES = [(6, 20), (20, 6), (6, 20), (9, 9), (31, 4), (1, 8), (9, 9)]  # wide, tall and square, some of one shape
SETTINGS = dict(lr=0.03, momentum=0.9, weight_decay=0.2)


def matrices(shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(parameters, seed):
    """A gradient of its own for every matrix, of sizes that differ a thousandfold."""
    generator = torch.Generator().manual_seed(seed)
    for i, parameter in enumerate(parameters):
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 10.0 ** (i % 4 - 2)


def after_steps(optimizer, parameters, steps=4):
    """The matrices after so many steps, each with gradients that follow from its number alone."""
    for step in range(steps):
        give_gradients(parameters, seed=100 + step)
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def compute_in(dtype, monkeypatch):
    """Have orthogonal matrices found in that precision, whatever this machine would choose."""
    monkeypatch.setattr(optimizers, "gains_from_bf16", lambda device: dtype == torch.bfloat16)


def largest_difference(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


# --- Muon --------------------------------------------------------------------------------------------------


def test_muon_is_torchs_to_the_rounding_of_bfloat16(monkeypatch):
    compute_in(torch.bfloat16, monkeypatch)
    ours, theirs = matrices(), matrices()
    torchs = torch.optim.Muon(theirs, **SETTINGS, nesterov=True, adjust_lr_fn="match_rms_adamw")
    difference = largest_difference(after_steps(Muon(ours, **SETTINGS), ours), after_steps(torchs, theirs))
    # A step moves an entry by some 0.2 * lr = 0.006, known to 8 bits: far less than the moves, more than nothing.
    assert difference < 2e-3
    assert largest_difference(ours, matrices()) > 0.05


def reference(parameters, steps=4):
    """The matrices after so many steps by the formulas, one matrix at a time, sums written as einsum, in float64."""
    found, momenta = [p.detach().double() for p in parameters], [0.0] * len(parameters)
    for step in range(steps):
        give_gradients(parameters, seed=100 + step)
        for i, parameter in enumerate(parameters):
            gradient = parameter.grad.double()
            momenta[i] = 0.9 * momenta[i] + 0.1 * gradient
            x = 0.1 * gradient + 0.9 * momenta[i]
            rows, columns = x.shape
            x = x / x.square().sum().sqrt()
            for _ in range(5):
                if rows <= columns:
                    cubic = torch.einsum("ij,kj,kl->il", x, x, x)
                    quintic = torch.einsum("ij,kj,kl->il", x, x, cubic)
                else:
                    cubic = torch.einsum("ij,kj,kl->il", x, x, x)
                    quintic = torch.einsum("ij,kj,kl->il", cubic, x, x)
                x = 3.4445 * x - 4.7750 * cubic + 2.0315 * quintic
            decayed = found[i] * (1 - 0.03 * 0.2)
            found[i] = decayed - 0.03 * 0.2 * math.sqrt(max(rows, columns)) * x
    return found


def test_muon_in_float32_follows_the_formulas(monkeypatch):
    compute_in(torch.float32, monkeypatch)
    parameters = matrices()
    assert largest_difference(reference(parameters), after_steps(Muon(parameters, **SETTINGS), parameters)) < 1e-5


def test_matrices_updated_together_end_as_if_each_were_alone(monkeypatch):
    compute_in(torch.float32, monkeypatch)
    together, apart = matrices(), matrices()
    muons = [Muon([parameter], **SETTINGS) for parameter in apart]
    after_steps(Muon(together, **SETTINGS), together)
    for step in range(4):
        give_gradients(apart, seed=100 + step)
        for muon in muons:
            muon.step()
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_filters_are_moved_as_the_matrix_that_they_are_laid_out_as(layout, monkeypatch):
    compute_in(torch.float32, monkeypatch)
    shapes = [(6, 4, 3, 3), (40, 2, 3, 3), (6, 36)]  # wide and tall once laid out, and a matrix like the first
    filters, flat = matrices(shapes), [nn.Parameter(p.detach().flatten(1).clone()) for p in matrices(shapes)]
    for parameter in filters[:2]:
        parameter.data = parameter.data.to(memory_format=layout)
    found, expected = after_steps(Muon(filters, **SETTINGS), filters), after_steps(Muon(flat, **SETTINGS), flat)
    for a, b, shape in zip(found, expected, shapes, strict=True):
        assert a.shape == shape
        torch.testing.assert_close(a.flatten(1), b, rtol=0, atol=1e-6)
    assert largest_difference(found, matrices(shapes)) > 0.05


@pytest.mark.parametrize("shape", [(5, 40), (16, 16)])
def test_an_update_changes_all_directions_about_equally(shape, monkeypatch):
    compute_in(torch.float32, monkeypatch)
    generator = torch.Generator().manual_seed(1)
    stack = torch.randn(3, *shape, generator=generator) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    singular = torch.linalg.svdvals(orthogonalized(stack))
    assert torch.linalg.svdvals(stack)[1].max() > 1.5 * torch.linalg.svdvals(stack)[1].min()
    assert (singular > 0.5).sum() >= singular.numel() - 3 and singular.max() < 1.3  # the smallest may still be growing


def test_a_gradient_of_zeros_moves_nothing_but_by_weight_decay():
    (parameter,) = matrices([(6, 20)])
    before = parameter.detach().clone()
    parameter.grad = torch.zeros_like(parameter)
    Muon([parameter], **SETTINGS).step()
    torch.testing.assert_close(parameter.detach(), before * (1 - 0.03 * 0.2), rtol=1e-6, atol=0)


def test_a_matrix_without_a_gradient_is_left_alone():
    parameters = matrices([(6, 20), (6, 20), (20, 6)])
    before = [parameter.detach().clone() for parameter in parameters]
    muon = Muon(parameters, **SETTINGS)
    give_gradients(parameters, seed=0)
    parameters[1].grad = None
    muon.step()
    assert torch.equal(parameters[1], before[1]) and parameters[1] not in muon.state
    assert not torch.equal(parameters[0], before[0]) and not torch.equal(parameters[2], before[2])


def test_a_step_does_not_change_the_gradients():
    parameters = matrices()
    give_gradients(parameters, seed=0)
    before = [parameter.grad.clone() for parameter in parameters]
    Muon(parameters, **SETTINGS).step()
    assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(parameters, before, strict=True))


def test_momentum_goes_on_where_a_saved_state_stopped():
    whole, first = matrices(), matrices()
    expected = after_steps(Muon(whole, **SETTINGS), whole, steps=4)
    muon = Muon(first, **SETTINGS)
    after_steps(muon, first, steps=2)
    state = copy.deepcopy(muon.state_dict())
    assert {tuple(values) for values in state["state"].values()} == {("momentum_buffer",)}

    def last_two(with_state):
        second = [nn.Parameter(parameter.detach().clone()) for parameter in first]
        muon = Muon(second, **SETTINGS)
        if with_state:
            muon.load_state_dict(state)
        for step in (2, 3):
            give_gradients(second, seed=100 + step)
            muon.step()
        return second

    assert all(torch.equal(a, b) for a, b in zip(last_two(True), expected, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(last_two(False), expected, strict=True))


# --- who gets which optimiser ------------------------------------------------------------------------------


MATRICES = {
    f"blocks.{i}.{mlp}_mixing.dense_{j}.weight" for i in range(2) for mlp in ("token", "channel") for j in range(2)
}


def groups(model, optimizer):
    """(kind of optimiser, weight decay) -> names of the parameters it has."""
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    recipe = Recipe("r", optimizer=optimizer, weight_decay=0.07, learning_rate=0.01)
    found = {}
    for maker in make_optimizers(model, recipe):
        for group in maker.param_groups:
            assert group["lr"] == 0.01
            names = found.setdefault((type(maker).__name__, group["weight_decay"]), [])
            names += [name_of[parameter] for parameter in group["params"]]
    assert sorted(sum(found.values(), [])) == sorted(name_of.values())  # each exactly once
    return {kind: set(names) for kind, names in found.items()}


def test_muon_gets_the_blocks_matrices_and_adamw_the_rest_without_decay_of_biases_and_norms(tiny_mixer):
    model = tiny_mixer()
    vectors = {name for name, parameter in model.named_parameters() if name.endswith("bias") or "norm" in name}
    ends = {"stem.proj.weight", "head.weight"}
    assert len(vectors) == 20  # 8 a block, 2 of the last LayerNorm, and the biases of stem and head
    assert groups(model, "muon") == {("Muon", 0.07): MATRICES, ("AdamW", 0.07): ends, ("AdamW", 0.0): vectors}
    assert groups(model, "adamw") == {("AdamW", 0.07): MATRICES | ends, ("AdamW", 0.0): vectors}


def test_muon_gets_the_filters_between_the_first_layer_and_the_last():
    model = baselines.cnn((1, 28, 28), 10, 5000)
    vectors = {name for name, parameter in model.named_parameters() if parameter.ndim == 1}
    filters, ends = {"conv_1.weight", "conv_2.weight"}, {"stem.weight", "head.weight"}
    assert groups(model, "muon") == {("Muon", 0.07): filters, ("AdamW", 0.07): ends, ("AdamW", 0.0): vectors}
    assert groups(model, "adamw") == {("AdamW", 0.07): filters | ends, ("AdamW", 0.0): vectors}


def test_a_depthwise_convolution_and_a_table_of_positions_are_no_matrices():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.Conv2d(8, 6, 3, bias=False))
    model.places = nn.Parameter(torch.zeros(1, 16, 8))
    assert groups(model, "muon") == {("Muon", 0.07): {"1.weight"}, ("AdamW", 0.07): {"0.weight", "places"}}


def test_a_model_of_matrices_alone_can_be_optimised():
    assert groups(nn.Linear(4, 3, bias=False), "muon") == {("Muon", 0.07): {"weight"}}


def test_muons_momentum_is_the_recipes(tiny_mixer):
    (_, muon) = make_optimizers(tiny_mixer(), Recipe("r", momentum=0.8))
    assert [group["momentum"] for group in muon.param_groups] == [0.8]


def test_an_unknown_optimiser_is_refused(tiny_mixer):
    with pytest.raises(ValueError) as error:
        make_optimizers(tiny_mixer(), Recipe("r", optimizer="sgd"))
    assert_told(error.value, "optimizer is 'sgd'", '"muon" or "adamw".')


# --- learning rates ----------------------------------------------------------------------------------------


def test_a_learning_rate_that_is_a_number_is_replaced(tiny_mixer):
    makers = make_optimizers(tiny_mixer(), Recipe("r"))
    set_learning_rate(makers, 0.125)
    assert [group["lr"] for maker in makers for group in maker.param_groups] == [0.125] * 3


def test_a_learning_rate_that_is_a_tensor_stays_the_same_tensor_and_is_obeyed():
    rate = torch.tensor(0.5)
    with_tensor, with_number = matrices(), matrices()
    muon = Muon(with_tensor, lr=rate, momentum=0.9, weight_decay=0.2)
    set_learning_rate([muon], 0.03)
    assert muon.param_groups[0]["lr"] is rate and rate.item() == pytest.approx(0.03)
    found, expected = after_steps(muon, with_tensor), after_steps(Muon(with_number, **SETTINGS), with_number)
    assert largest_difference(found, expected) < 1e-5


def test_a_learning_rate_of_zero_changes_nothing(tiny_mixer):
    model = tiny_mixer()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    makers = make_optimizers(model, Recipe("r"))
    set_learning_rate(makers, 0.0)
    give_gradients(list(model.parameters()), seed=0)
    for maker in makers:
        maker.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
