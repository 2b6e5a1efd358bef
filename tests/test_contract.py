"""What readers rely on: every import from the package, and every attribute of what is imported, resolves.

Looked at are the notebooks' code cells and the Python blocks of README.md and docs/*.md. Names may move between
modules; where they are imported from must go on working.
"""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest

import mixer_utils

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def sources(path):
    """The Python of a notebook or of a page of Markdown."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


def uses(source):
    """What a piece of code imports, [("mixer_utils.mixing", "unit_maps")]; the names it gives to modules; its tree."""
    tree = ast.parse(source)
    result = []
    modules = {"mixer_utils": "mixer_utils"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mixer_utils":
            result += [(node.module, alias.name) for alias in node.names]
            modules |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname: alias.name for alias in node.names if alias.asname}
            result += [(alias.name, None) for alias in node.names if alias.name.split(".")[0] == "mixer_utils"]
    return result, modules, tree


def read_off(tree, modules):
    """[("mixer_utils.mixing", "unit_maps")]: attributes read off names that stand for something of the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield modules[node.value.id], node.attr


def resolve(module, name):
    """What ``from module import name`` gives; ``module`` itself where name is None."""
    result = importlib.import_module(module)
    if name is None:
        return result
    if not hasattr(result, name):
        return importlib.import_module(f"{module}.{name}")
    return getattr(result, name)


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=lambda path: path.stem)
def test_every_import_and_attribute_that_readers_see_resolves(path):
    imported = []
    modules = {}
    for source in sources(path):
        try:
            here, known, tree = uses(source)
        except SyntaxError:
            assert path.suffix == ".md", source  # a page may show a fragment
            continue
        imported += here
        modules |= known
        for owner, attribute in read_off(tree, modules):
            if owner.split(".")[0] == "mixer_utils":
                *above, last = owner.split(".")
                value = resolve(".".join(above), last) if above else mixer_utils
                assert hasattr(value, attribute), f"{path.name}: {owner}.{attribute}"
    for module, name in imported:
        resolve(module, name)  # raises where there is no such thing
    if path.suffix == ".ipynb":
        assert ("mixer_utils.first_cell", "start") in imported


# What pages tell people to import, and DESIGN's contract: of the package itself.
PUBLIC = """
    MlpMixer MixerBlock MlpBlock PatchEmbedding CONFIGS create_mixer load_dataset load_image_folder Dataset Split
    DataError save_checkpoint load_checkpoint CheckpointError load_official_npz save_official_npz load_timm
    load_pretrained with_classes
    at_higher_resolution Snapshots load_recorded_run RECIPES Recipe History train evaluate Report MixerError
""".split()


@pytest.mark.parametrize("name", PUBLIC)
def test_the_package_gives_its_public_names(name):
    assert getattr(mixer_utils, name) is not None
    assert name in mixer_utils.__all__


def test_what_is_not_there_is_noticed():
    with pytest.raises(ImportError):
        resolve("mixer_utils.data", "no_such_name")
    here, modules, tree = uses("from mixer_utils import mixing\nmixing.no_such_name(1)")
    assert here == [("mixer_utils", "mixing")]
    assert list(read_off(tree, modules)) == [("mixer_utils.mixing", "no_such_name")]
