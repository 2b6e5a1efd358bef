"""The explorer: one page that holds a model and needs nothing else. What it does in a browser: tests/browser."""

import base64
import contextlib
import importlib.metadata
import io
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from mixer_utils import create_mixer, load_pretrained, save_checkpoint
from mixer_utils.__main__ import main
from mixer_utils.widgets import page as explorer
from mixer_utils.widgets.base import packed

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
VIEWS = ["network", "learn", "training"]
WITHOUT_END = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """The elements of a page in order, [(tag, attributes, text)]; AssertionError where tags are not nested."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        if tag not in WITHOUT_END:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open and self.open[-1][0]}"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, *tags):
        return [element for element in self.elements if element[0] in tags]

    def buffers(self):
        """What the page's script unpacks: the bytes of every buffer."""
        return [unpacked(text, int(a["data-width"])) for _, a, text in self.all("script") if "data-width" in a]

    def state(self, place):
        """A view's traits as its script gets them."""
        at = next(i for i, (_, attributes, _) in enumerate(self.elements) if attributes.get("id") == place)
        return json.loads(self.elements[at + 1][2])


def unpacked(text, width):
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return planes.reshape(width, -1).T.tobytes()


def tensors(page, place="network-view"):
    """The weights in a page, by name, as float32 arrays."""
    found, buffers = page.state(place)["data"]["mixer"]["tensors"], page.buffers()
    return {
        name: np.frombuffer(buffers[one["bytes"]["buffer"]], one["dtype"]).reshape(one["shape"]).astype(np.float32)
        for name, one in found.items()
    }


def assert_same(found, model):
    weights = model.state_dict()
    assert list(found) == list(weights)
    assert all(np.array_equal(found[name], weights[name].numpy()) for name in weights)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The path of the explorer that the command line writes, and what it prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        main(["explorer", "--out", str(tmp_path_factory.mktemp("explorer") / "new")])
    return said.getvalue()


@pytest.fixture(scope="module")
def path(written):
    return Path(written.split(":")[0])


@pytest.fixture(scope="module")
def page(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def run(tiny_mixer, tmp_path):
    """The folder of a run on digits, as far as the explorer reads it, and its model."""
    model, recipe = tiny_mixer().eval(), {"name": "digits <1>", "epochs": 3}
    names = list("0123456789")
    about = dict(dataset="digits", recipe=recipe, seed=0, mean=[0.3], std=[0.3], class_names=names)
    save_checkpoint(model, tmp_path / "run" / "model.safetensors", **about)
    return tmp_path / "run", model


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_command_writes_one_page_and_prints_one_line_with_its_path_and_size(written, path):
    assert [one.name for one in path.parent.iterdir()] == ["index.html"]
    assert written == f"{path}: {path.stat().st_size / 1e6:.2f} MB, open it in a browser.\n"


def test_the_page_has_at_most_6_mb(path):
    assert path.stat().st_size <= 6_000_000


def test_the_page_is_a_proper_document(page):
    ((_, attributes, _),) = page.all("html")
    assert attributes["lang"] == "en"
    assert [text for _, _, text in page.all("title")] == ["MLP-Mixer explorer"]
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("footer")) == 1
    assert len(page.all("noscript")) == 1
    metas = {attributes.get("name"): attributes.get("content") for _, attributes, _ in page.all("meta")}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["color-scheme"] == "light dark"


def test_every_section_has_a_heading_and_a_link_to_it(page):
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [attributes["aria-labelledby"] for _, attributes, _ in page.all("section")] == [*VIEWS, "series"]
    assert [attributes["id"] for _, attributes, _ in page.all("h2")] == [*VIEWS, "series"]
    inner = [attributes["href"] for _, attributes, _ in page.all("a") if attributes["href"].startswith("#")]
    assert inner == [f"#{VIEWS[0]}", *(f"#{name}" for name in VIEWS)]  # the first skips what stands above the views
    assert {f"{name}-view" for name in VIEWS} <= set(ids)


def test_the_page_asks_for_nothing_but_itself(page):
    for tag, attributes, text in page.elements:
        source = attributes.get("src") or (attributes.get("href", "") if tag != "a" else "")
        assert source.startswith("data:") or source == ""
        if tag == "style" or "style" in attributes:
            assert not re.search(r"@import|url\(", text + attributes.get("style", ""))
        if tag == "script" and attributes.get("type") == "module":
            text = text.replace("http://www.w3.org/2000/svg", "")  # the name of a language, asked of nobody
            assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|\bimport\b|sendBeacon|https?://", text)


def test_the_page_links_to_the_paper_and_to_the_repository_of_the_package(page):
    (address,) = importlib.metadata.metadata("mlp-mixer-tutorial").get_all("Project-URL")
    outer = [attributes["href"] for _, attributes, _ in page.all("a") if not attributes["href"].startswith("#")]
    address = address.removeprefix("Repository, ")
    notebooks = [f"{address}/blob/main/notebooks/{path.name}" for path in NOTEBOOKS]
    assert outer == [*notebooks, "https://arxiv.org/abs/2105.01601", address]


def test_the_series_under_the_views_is_that_of_the_readme(page):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d\d) · ([^\]]+)\]\(notebooks/(\w+)\.ipynb\) \| ([^|]+) \|", readme, re.MULTILINE)
    assert [name for *_, name, _ in rows] == [path.stem for path in NOTEBOOKS]
    assert [(name, title, question) for _, title, name, question in rows] == list(explorer.SERIES)
    said = [" ".join(text.split()) for _, _, text in page.all("li")]
    assert said == [f"{title}: {question}" for _, title, _, question in rows]


def test_the_page_tells_the_model_s_sizes(page):
    (main,), sections = page.all("main"), page.all("section")
    said = " ".join(main[2].split())
    assert "28 × 28 pixels into 14 × 14 = 196 patches of 2 × 2 pixels, makes a list of 64 numbers" in said
    assert "all 139,446 weights of a Mixer, trained on MNIST for 30 epochs (recipe mixing)" in said
    assert "3 blocks, trained on MNIST for 30 epochs (recipe mixing)" in " ".join(sections[2][2].split())


# --- what a reader chooses --------------------------------------------------------------------------------------------


def of_page(page):
    """What the page's script knows of its views: {"traits": ..., "steps": ...}."""
    (text,) = [text for _, attributes, text in page.all("script") if attributes.get("id") == "mixer-page"]
    return json.loads(text)


def test_the_page_knows_what_can_stand_in_its_address(page):
    traits = of_page(page)["traits"]
    assert list(traits) == VIEWS
    counts = {name: kind for name, kind in traits["network"].items() if isinstance(kind, int)}
    starts = len(page.state("network-view")["data"]["starts"])
    sizes = {"block": 3, "channel": 64, "class_index": 10, "hidden_unit": 256, "patch": 196, "unit": 32}
    assert counts == {**sizes, "start": starts} and starts > 10
    assert "token mixing" in traits["network"]["stage"] and traits["network"]["before"] == [False, True]
    assert traits["network"]["pixels"] == {"pixels": 784} and traits["network"]["hidden"] == {"patches": 196}
    assert not {"probabilities", "computed", "data"} & set(traits["network"])  # no choices
    assert "playing" not in traits["training"] and traits["training"]["time"] > 10
    assert traits["learn"]["patch_size"] == page.state("learn-view")["data"]["patch_sizes"]


def test_the_tour_has_six_steps_of_one_sentence_whose_choices_exist(page):
    about = of_page(page)
    assert about["steps"] == explorer.TOUR and len(explorer.TOUR) == 6
    for step in explorer.TOUR:
        assert set(step) == {"view", "set", "target", "text"}
        assert re.fullmatch(r"[A-Z][^.]*\.", step["text"])
        for name, value in step["set"].items() if step["view"] in about["traits"] else []:
            kind = about["traits"][step["view"]][name]
            assert value in (kind if isinstance(kind, list) else range(kind))


# --- its data ---------------------------------------------------------------------------------------------------------


def test_the_page_holds_exactly_the_shipped_weights(page):
    assert_same(tensors(page), load_pretrained("mnist-14x14"))


def test_nothing_is_written_twice(page):
    buffers = page.buffers()
    assert len(buffers) == len(set(buffers)) > 20


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_arrays_come_back_as_they_were(dtype):
    array = np.arange(-300, 300).astype(dtype)
    (place,), end = explorer.embedded([{"data": {"one": packed(array), "two": packed(array)}, "_esm": "left out"}])
    page = Page(place + end)
    assert page.state("view-0")["data"]["one"] == page.state("view-0")["data"]["two"]
    assert page.state("view-0").keys() == {"data"}
    (content,) = page.buffers()
    assert np.array_equal(np.frombuffer(content, dtype), array)


def test_no_text_ends_the_script_it_stands_in():
    texts = {"title": "</script><b>", "note": "<!--<script>", "plain": "3 < 4 & é"}
    places, end = explorer.embedded({"here": texts})
    assert Page(places[0] + end).state("here") == texts
    assert "<b>" not in places[0] and "<!--" not in places[0]


# --- other models -----------------------------------------------------------------------------------------------------


def test_the_model_of_a_run_is_shown_and_named(run, tmp_path):
    folder, model = run
    main(["explorer", str(folder), "--out", str(tmp_path)])
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert_same(tensors(page), model)
    said = " ".join(page.all("main")[0][2].split())
    assert "2 × 2 = 4 patches of 14 × 14" in said
    weights = sum(weight.numel() for weight in model.parameters())
    assert f"all {weights:,} weights of a Mixer, trained on digits for 3 epochs (recipe digits <1>)" in said


def test_weights_that_would_not_fit_are_rounded_to_half_precision(run, monkeypatch):
    _, model = run
    monkeypatch.setattr(explorer, "MOST_BYTES", 3 * sum(weight.numel() for weight in model.parameters()))
    page = Page(explorer.explorer_page(model))
    found = tensors(page)
    assert_same(found, model.half().float())


def test_without_mnist_the_page_has_no_images_to_start_from_and_trains_on_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MIXER_DATA", str(tmp_path / "empty"))
    path = explorer.write_explorer(tmp_path)
    said = capsys.readouterr().out
    assert "digits" in said and said.count("\n") == 1
    page = Page(path.read_text(encoding="utf-8"))
    assert page.state("network-view")["data"]["starts"] == []
    assert page.state("learn-view")["data"]["name"] == "digits"


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_model_that_is_too_large_is_refused_in_one_sentence_and_the_old_page_stays(tmp_path):
    (tmp_path / "index.html").write_text("old", encoding="utf-8")
    sentence = r"too large for a page of 6 MB \(it has 18\.\d million weights\): give a smaller one"
    with pytest.raises(ValueError, match=sentence):
        explorer.write_explorer(tmp_path, create_mixer("S/16"))
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("index.html", "old")]


def test_a_page_that_became_too_large_is_not_written(run, tmp_path, monkeypatch):
    folder, model = run
    monkeypatch.setattr(explorer, "MOST_BYTES", 20_000)
    with pytest.raises(ValueError, match=r"\(its page has \d\.\d MB\): give a smaller one"):
        explorer.write_explorer(tmp_path / "new", model)
    assert not (tmp_path / "new").exists()


def stop(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code.startswith("error: ") and "\n" not in end.value.code
    return end.value.code


def test_what_cannot_be_shown_or_written_ends_in_one_sentence(tmp_path, run):
    assert "There is no checkpoint" in stop("explorer", tmp_path / "nowhere", "--out", tmp_path)
    (tmp_path / "file").touch()
    assert f"Cannot write {tmp_path / 'file' / 'index.html'}" in stop("explorer", run[0], "--out", tmp_path / "file")
    with pytest.raises(ValueError, match="shows an MlpMixer, not a Linear"):
        explorer.write_explorer(tmp_path, torch.nn.Linear(2, 2))
    assert not (tmp_path / "index.html").exists()


def test_without_a_folder_to_write_to_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as end:
        main(["explorer"])
    assert end.value.code == 2
    assert "--out" in capsys.readouterr().err
