"""Notebook 08's networks: what the notebook shows is what the long run trains, and each is what its name says."""

import ast
import importlib.util
import json
from pathlib import Path

import nbformat
import pytest
import torch

from benchmarks import variants
from benchmarks.variants import NETWORKS, Grouped, Untied, bracketed, mixer
from mixer_utils import load_dataset
from mixer_utils.drawings import nb08
from mixer_utils.model import count_parameters

ROOT = Path(__file__).parent.parent
CELLS = [
    ast.parse(cell.source)
    for cell in nbformat.read(ROOT / "notebooks" / "08_what_mixing_buys.ipynb", as_version=4).cells
    if cell.cell_type == "code"
]
SHOWN = [node for cell in CELLS for node in cell.body]
IMPORTABLE = ast.parse(Path(variants.__file__).read_text(encoding="utf-8")).body
DEFINED = {node.name: ast.dump(node) for node in IMPORTABLE if isinstance(node, ast.ClassDef | ast.FunctionDef)}
SET = {ast.unparse(node.targets[0]): ast.dump(node.value) for node in IMPORTABLE if isinstance(node, ast.Assign)}


@pytest.mark.parametrize("name", DEFINED)
def test_a_class_or_function_of_the_long_run_is_the_one_shown_in_the_notebook(name):
    assert [ast.dump(node) for node in SHOWN if getattr(node, "name", None) == name] == [DEFINED[name]]


def test_the_sizes_are_those_of_the_notebook():
    sizes = {ast.unparse(node.targets[0]): ast.dump(node.value) for node in SHOWN if isinstance(node, ast.Assign)}
    for name in SET.keys() - {"NETWORKS"}:
        assert sizes[name] == SET[name], name


def test_the_notebook_has_a_rate_for_each_network_and_no_other():
    sets = [node for node in SHOWN if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RATES"]
    assert [list(ast.literal_eval(node.value)) for node in sets] == [list(NETWORKS)]


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_maps_images_to_logits_and_learns_in_all_weights_that_lead_anywhere(name):
    torch.manual_seed(0)
    model = NETWORKS[name]()
    torch.nn.init.normal_(model.head.weight)  # zero at the start: nothing before it would have a gradient
    logits = model(torch.randn(4, 1, 28, 28))
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    before_nothing = {"no token mixing": "norm_0", "no channel mixing": "norm_1"}.get(name)
    idle = {weight.split(".")[2] for weight, values in model.named_parameters() if values.grad is None}
    assert idle == ({before_nothing} if before_nothing else set())


def one_channel(untied, channel, x):
    """What the MLP of a channel makes of that channel, (B, S)."""
    hidden = torch.nn.functional.gelu(x[:, :, channel] @ untied.W_1[channel] + untied.b_1[channel])
    return hidden @ untied.W_2[channel] + untied.b_2[channel]


def test_untied_gives_every_channel_an_mlp_of_its_own():
    torch.manual_seed(0)
    untied, x = Untied(), torch.randn(3, 16, 48)
    for channel in (0, 17, 47):
        assert torch.allclose(untied(x)[:, :, channel], one_channel(untied, channel, x), atol=1e-5)
    assert count_parameters(untied) == 48 * count_parameters(mixer().blocks[0].token_mixing)


def test_groups_hear_all_tokens_of_their_four_channels_and_nothing_of_the_others():
    torch.manual_seed(0)
    grouped, x = Grouped(), torch.randn(1, 16, 48, requires_grad=True)
    grouped(x)[0, 5, 9].backward()  # channel 9 is in the group of 8 to 11
    heard = x.grad[0].abs() > 0
    assert heard[:, 8:12].all() and heard.sum() == 16 * 4


def test_one_mlp_serves_all_groups_alike():
    torch.manual_seed(0)
    grouped, x = Grouped(), torch.randn(2, 16, 48)
    assert torch.allclose(grouped(x.roll(4, dims=2)), grouped(x).roll(4, dims=2), atol=1e-5)


@pytest.mark.parametrize("peak", [0.0005, 0.004, 0.1])
def test_a_grid_is_widened_until_its_best_rate_lies_inside(peak):
    tried = []

    def score(rate):
        tried.append(rate)
        return -abs(torch.tensor(rate / peak).log2().item())

    best, scores = bracketed(score, [0.008, 0.004, 0.016])
    assert best == max(scores, key=scores.get) and min(scores) < best < max(scores)
    assert 0.7 < best / peak < 1.42
    assert list(scores) == sorted(tried) and len(tried) == len(set(tried))


def test_a_grid_whose_rates_all_do_the_same_is_not_widened_for_ever():
    best, scores = bracketed(lambda rate: 0.1, [0.004, 0.008, 0.016])
    assert best == 0.004 and list(scores) == [0.002, 0.004, 0.008, 0.016]


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """tools/measure.py, which writes to a folder of the test's own."""
    spec = importlib.util.spec_from_file_location("measure", ROOT / "tools" / "measure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "GPU", False)
    monkeypatch.chdir(tmp_path)
    return module


def test_the_long_run_says_what_it_did_and_goes_on_where_it_was_cut(measure, tmp_path, monkeypatch, capsys):
    few = {name: NETWORKS[name] for name in ("no channel mixing", "plain MLP")}
    settings = {"data": load_dataset("digits"), "epochs": 1, "seeds": [0, 1], "networks": few, "sprint": (20, 500),
                "batch_size": 32}  # fmt: skip
    fit, calls = measure.of_notebook_08.fit, []

    def cut_after_ten(*given):
        calls.append(given)
        if len(calls) > 10:
            raise KeyboardInterrupt
        return fit(*given)

    monkeypatch.setattr(measure.of_notebook_08, "fit", cut_after_ten)
    with pytest.raises(KeyboardInterrupt):
        measure.variants(**settings)
    assert not (tmp_path / "variants.json").exists()
    printed = capsys.readouterr().out

    monkeypatch.setattr(measure.of_notebook_08, "fit", fit)
    measure.variants(**settings)
    assert not set(printed.splitlines()) & set(capsys.readouterr().out.splitlines())  # nothing was done twice

    found = json.loads((tmp_path / "variants.json").read_text())
    assert found["command"] == "python tools/measure.py variants" and found["precision"] == "float32"
    assert (found["dataset"], found["seeds"], found["epochs"]) == ("digits", [0, 1], 1)
    assert found["steps"] == found["training_images"] // 32
    for name, build in few.items():
        network = found["networks"][name]
        assert network["num_parameters"] == count_parameters(build())
        for chosen in (network, network["sprint"]):
            rates = {float(rate): reached for rate, reached in chosen["validation_accuracy_by_rate"].items()}
            assert chosen["learning_rate"] == max(rates, key=rates.get) and len(rates) >= 3
        assert [run["seed"] for run in network["runs"]] == [0, 1]
        assert all(0.2 < run["validation_accuracy"] <= 1 for run in network["runs"])


def test_a_long_run_is_trained_by_the_notebook_s_loop_from_its_seed(measure, tmp_path):
    data = load_dataset("digits")
    measure.variants(data=data, epochs=1, seeds=[3], networks={"plain MLP": NETWORKS["plain MLP"]}, sprint=(20, 500),
                     batch_size=32)  # fmt: skip
    network = json.loads((tmp_path / "variants.json").read_text())["networks"]["plain MLP"]
    training, validation = measure.hold_out(data.train, len(data.train) // 5)
    torch.manual_seed(3)
    model = NETWORKS["plain MLP"]()
    steps = len(training) // 32
    variants.fit(model, data.normalize(training.images), training.labels, network["learning_rate"], 3, steps, 32)
    reached = variants.accuracy(model, data.normalize(validation.images), validation.labels)
    assert reached == pytest.approx(network["runs"][0]["validation_accuracy"], abs=0.01)


@pytest.mark.parametrize("long", [False, True])
def test_the_figure_shows_every_network_once_and_the_long_run_where_there_is_one(long):
    accuracies = {name: [0.9 + k / 200, 0.91 + k / 200] for k, name in enumerate(NETWORKS)}
    picture = nb08.mistakes(accuracies, accuracies if long else {})
    assert len(picture.axes) == 1 + long and ("eight epochs" in picture.alt) == long
    assert [label.get_text() for label in picture.axes[0].get_yticklabels()] == list(NETWORKS)
    for ax in picture.axes:
        drawn = sorted((line.get_ydata()[0], list(line.get_xdata())) for line in ax.lines)
        wrong = [[100 * (1 - value) for value in values] for values in accuracies.values()]
        assert [y for y, _ in drawn] == list(range(len(NETWORKS)))
        assert [x for _, x in drawn] == [pytest.approx(values) for values in wrong]
