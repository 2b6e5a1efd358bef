"""`make save-imagenet`: notebook 09 on the authors' weights, tried on a small random network in their file format."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from mixer_utils import MlpMixer, save_official_npz
from mixer_utils.checkpoints import read_tensors

ROOT = Path(__file__).resolve().parent.parent
# The paper's grid, 14 x 14 patches of 16 x 16 pixels, and the 1,000 classes; the rest is tiny.
SIZES = dict(image_size=224, in_channels=3, patch_size=16, num_classes=1000, num_blocks=3, hidden_dim=8,
             tokens_mlp_dim=10, channels_mlp_dim=12)  # fmt: skip
FILE = "imagenet1k/Mixer-B_16.npz"
LISTED = """
from mixer_utils import published
published.PUBLISHED["B/16", "imagenet1k"] = ("imagenet1k/Mixer-B_16.npz", None, None)
"""


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.setenv("MIXER_DOWNLOAD", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MIXER_CLAIMS", raising=False)  # claims about trained weights need not hold for random ones
    import notebooks

    yield notebooks
    sys.modules.pop("notebooks")


def cut(monkeypatch, tool, keep):
    """Run only the code cells of the notebook for which ``keep(source)`` holds, and the tool's own last one."""
    execute = tool.execute

    def shorter(path, change):
        def changed(notebook):
            notebook.cells = [cell for cell in notebook.cells if cell.cell_type != "code" or keep(cell.source)]
            change(notebook)

        return execute(path, changed)

    monkeypatch.setattr(tool, "execute", shorter)


@pytest.mark.slow
def test_a_run_on_weights_in_the_authors_format_leaves_their_maps_and_numbers(tool, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = MlpMixer(**SIZES)
    torch.nn.init.normal_(model.head.weight)
    weights = tmp_path / "weights" / FILE
    weights.parent.mkdir(parents=True)
    save_official_npz(model, weights)
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setenv("MIXER_WEIGHTS", str(tmp_path / "weights"))
    tool.save_imagenet(results, tmp_path / "build", LISTED)

    numbers = json.loads((results / "imagenet.json").read_text())
    assert numbers["model"] == {"name": "B/16", "weights": "imagenet1k", **model.config,
                                "num_parameters": sum(p.numel() for p in model.parameters())}  # fmt: skip
    assert list(numbers["answers_kept"]) == ["the authors'", "torchvision's", "bytes"]
    assert numbers["answers_kept"]["the authors'"] == 1  # its own preparation
    assert [len(row) for row in numbers["examples"]] == [5, 5]
    assert all(
        len(rows) == len(numbers["few_shot"]["of_each_class"]) for rows in numbers["few_shot"]["accuracy"]["pixels"]
    )
    assert set(numbers["few_shot"]["accuracy"]) == {"trained", "untrained", "pixels"}
    assert 0 <= numbers["enlarged_answers_kept"] <= 1 and len(numbers["fine_tuned"]["trained"]) >= 1
    assert [len(numbers["structure"][name]["morans_i"]) for name in ("B/16", "by chance")] == [3, 3]

    tensors, about = read_tensors(results / "imagenet-maps.safetensors")
    assert about["grid"] == [14, 14]
    for k, block in enumerate(model.blocks):
        units = tensors[f"block_{k}.units"]
        assert sorted(units.tolist()) == list(range(10))
        assert torch.equal(tensors[f"block_{k}.reads"], block.token_mixing.dense_0.weight[units].half())
    assert sum(path.stat().st_size for path in results.iterdir()) < 200_000

    ran = nbformat.read(tmp_path / "build" / "09_imagenet_mixer.ipynb", 4)
    assert ran.cells[-1].cell_type == "markdown" and not any("write_tensors" in cell.source for cell in ran.cells)
    told = "".join(output.get("text", "") for cell in ran.cells for output in cell.get("outputs", []))
    assert "3 blocks, P 16, C 8, S 196, D_C 12, D_S 10" in told and "could not be had" not in told.split("\n")[1]


def test_without_the_weights_nothing_is_stored_and_one_sentence_says_so(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("MIXER_WEIGHTS", str(tmp_path / "nothing"))
    loading = ("from mixer_utils.first_cell import start", "import copy", 'load_pretrained("B/16"')
    cut(monkeypatch, tool, lambda source: any(part in source for part in loading))
    earlier = tmp_path / "imagenet.json"
    earlier.write_text("{}")
    with pytest.raises(SystemExit, match=r"^error: B/16 could not be had, so nothing was stored: see .*09_imagenet"):
        tool.save_imagenet(tmp_path, tmp_path / "build")
    assert earlier.read_text() == "{}" and not (tmp_path / "imagenet-maps.safetensors").exists()
