"""What every notebook must be, read from the saved files alone. That the cells run is nbval's part (`make test`)."""

import ast
import inspect
import json
import os
import re
import statistics
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import nbformat
import pytest
import torch

from mixer_utils import model

ROOT = Path(__file__).parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ["00_start_here", "01_patch_embedding", "02_token_mixing", "03_channel_mixing", "04_mlp_mixer",
         "05_training", "06_evaluation", "07_mixing_weights", "08_what_mixing_buys", "09_imagenet_mixer",
         "10_faster_and_bigger"]  # fmt: skip
SHOWN = {"01_patch_embedding": ["PatchEmbedding"], "02_token_mixing": ["TokenMixing"],
         "03_channel_mixing": ["MlpBlock"]}  # fmt: skip
SHORT = ["MixerBlock", "MlpMixer"]  # 04 shows these two without what the package adds

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path):
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def tags(cell):
    return set(cell.metadata.get("tags", []))


def images(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                yield output


def test_the_series_is_complete_and_numbered_without_a_gap():
    assert [path.stem for path in PATHS] == NAMES


@every_notebook
def test_a_notebook_is_valid_and_at_most_one_megabyte(path):
    nbformat.validate(json.loads(path.read_text(encoding="utf-8")))
    assert path.stat().st_size <= 1_000_000


@every_notebook
def test_it_was_run_from_the_first_cell_to_the_last(path):
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))


@every_notebook
def test_no_widget_state_is_saved(path):
    assert "widgets" not in read(path).metadata
    for cell in code_cells(path):
        for output in cell.outputs:
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), cell.source


@every_notebook
def test_no_output_is_an_error_or_a_warning(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", f"{cell.source}\nprinted to stderr: {output.get('text')}"


@every_notebook
def test_no_absolute_path_is_left(path):
    folders = r"(?<![\w.:/])/(?:root|home|work|Users|tmp|opt|var)/[\w./-]+|[A-Z]:\\\\\w+"
    assert not re.findall(folders, path.read_text(encoding="utf-8"))


@every_notebook
def test_only_known_tags_are_used(path):
    for cell in code_cells(path):
        assert tags(cell) <= {"nbval-ignore-output", "raises-exception"}, cell.source


@every_notebook
def test_at_least_four_fifths_of_the_printing_cells_are_compared(path):
    printing = [cell for cell in code_cells(path) if cell.outputs]
    compared = [cell for cell in printing if "nbval-ignore-output" not in tags(cell)]
    assert len(compared) >= 0.8 * len(printing), f"{len(compared)} of {len(printing)}"


def says_something(alt):
    """Whether alt text is more than a label: a sentence's worth of words that does not spend them on "image of"."""
    return len(alt.split()) >= 6 and not re.match(
        r"(an? |the )?(image|picture|figure|plot|graph|chart) (of|showing)\b", alt, re.I
    )


@every_notebook
def test_every_figure_says_what_it_shows_and_no_two_say_the_same(path):
    alts = [output.metadata["image/png"]["alt"] for output in images(path)]
    assert [output.data["text/plain"] for output in images(path)] == alts
    drawn = [alt for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", prose(path)) if "badge" not in target]
    for alt in [*alts, *drawn]:
        assert says_something(alt), alt
    assert len(set(alts)) == len(alts)


def test_pictures_of_the_readme_and_the_docs_say_what_they_show():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    found = [alt for page in pages for alt in re.findall(r"!\[([^\]]*)\]", page.read_text(encoding="utf-8"))]
    assert len(found) >= 5 and all(says_something(alt) for alt in found)


def test_the_setup_cell_is_the_same_in_all_but_its_number_and_at_most_twelve_lines():
    setups = {code_cells(path)[0].source.replace(f'start("{path.stem[:2]}")', "start()") for path in PATHS}
    assert len(setups) == 1
    (setup,) = setups
    assert len(setup.splitlines()) <= 12
    ast.parse(setup)  # plain Python, no magics


@every_notebook
def test_all_code_is_plain_python(path):
    for cell in code_cells(path):
        ast.parse(cell.source)


@every_notebook
def test_links_between_notebooks_and_to_files_resolve(path):
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)[^)]*\)", prose(path)):
        assert (path.parent / target).is_file(), target


@every_notebook
def test_it_opens_itself_in_colab_from_the_address_in_pyproject(path):
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    name = stated.removeprefix("https://github.com/")
    assert f"https://colab.research.google.com/github/{name}/blob/main/notebooks/{path.name}" in prose(path)
    assert f'address = "{stated}"' in code_cells(path)[0].source


@every_notebook
def test_it_leads_to_its_neighbours(path):
    at = PATHS.index(path)
    for neighbour in PATHS[at + 1 : at + 2] + PATHS[max(0, at - 1) : at]:
        if neighbour.stem != "00_start_here":
            assert neighbour.name in prose(path)


@every_notebook
def test_cells_are_short_and_there_is_enough_to_read(path):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)[1:]]
    assert max(lengths) <= 30
    assert statistics.median(lengths) <= 9
    assert 20 <= len(lengths) + 1 <= 48
    assert 800 <= len(prose(path).split()) <= 3500


@every_notebook
def test_it_ends_with_exercises_of_rising_difficulty_that_nobody_has_begun(path):
    number, checks = path.stem[:2], [cell for cell in code_cells(path) if cell.source.startswith("ex.check(")]
    asked = re.findall(rf"### Exercise {number}\.\d · (★+)☆* · (\d+) minutes", prose(path))
    assert len(asked) == len(checks) >= (2 if number == "00" else 3)
    stars = [len(difficulty) for difficulty, _ in asked]
    assert stars == sorted(stars) and stars[0] == 1 and (stars[-1] == 3 or number == "00")
    for cell in checks:
        assert cell.outputs[0].text.endswith(": not yet — complete the cell above\n")
    assert code_cells(path)[-1].source == "ex.progress()"


def test_notebooks_that_train_ask_colab_for_a_gpu_and_the_others_leave_it_to_those():
    asking = [path.stem[:2] for path in PATHS if read(path).metadata.get("accelerator") == "GPU"]
    imports = r"^from mixer_utils import .*\btrain\b"
    training = [path.stem[:2] for path in PATHS if any(
        re.search(imports, cell.source, re.MULTILINE) for cell in code_cells(path))]  # fmt: skip
    assert asking == training
    for path in PATHS:
        if path.stem[:2] in asking:
            assert read(path).metadata["colab"] == {"gpuType": "T4"}


# That each of them runs on digits to its end is shown by test_cells_twice.py: here 05 ends with its accuracy.
TWO = """
import sys
from pathlib import Path
import notebooks
execute = notebooks.execute
notebooks.NOTEBOOKS = [path for path in notebooks.NOTEBOOKS if path.stem[:2] in ("00", "05")]

def shorten(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[0].source += (
        "\\nimport dataclasses\\nfrom mixer_utils import RECIPES\\n"
        "RECIPES['digits'] = dataclasses.replace(RECIPES['digits'], epochs=6)"
    )
    ends = [at for at, cell in enumerate(notebook.cells) if 'claim("test accuracy of at least' in cell.source]
    if ends:
        del notebook.cells[ends[0] + 1 :]

notebooks.execute = lambda path: execute(path, shorten)
sys.exit(notebooks.tutorial(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_without_mnist_the_tutorial_runs_on_digits_and_says_so_at_both_ends(tmp_path):
    nowhere = {"MIXER_DATA": str(tmp_path / "nothing"), "MIXER_DOWNLOAD": "0", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", TWO, tmp_path / "build"],
        env=os.environ | nowhere | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tools"), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.strip().splitlines()
    assert sum("digits: mnist is not in" in line for line in lines[:2]) == 1
    assert "digits, not MNIST" in lines[-1]
    assert any(re.fullmatch(r"Reached: test accuracy \d+\.\d+% on 360 images of digits", line) for line in lines)
    assert len(list((tmp_path / "build").glob("*.html"))) == 2
    told = (tmp_path / "build" / "05_training.ipynb").read_text(encoding="utf-8")
    assert "test accuracy of at least 98.34 %: not checked (digits instead of mnist)" in told


class WithoutDocstrings(ast.NodeTransformer):
    def visit(self, node):
        self.generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = body[1:]
        return node


def tree(source):
    return ast.dump(WithoutDocstrings().visit(ast.parse(textwrap.dedent(source))))


def shown_in(name, shown):
    """The one class or function of this name in a notebook's cells, as a tree."""
    trees = [ast.parse(cell.source) for cell in code_cells(ROOT / "notebooks" / f"{name}.ipynb")]
    (found,) = [node for cell in trees for node in cell.body if getattr(node, "name", None) == shown]
    return found


@pytest.mark.parametrize("name, shown", [(name, shown) for name, parts in SHOWN.items() for shown in parts])
def test_a_class_or_function_shown_in_a_notebook_is_the_package_s(name, shown):
    assert tree(ast.unparse(shown_in(name, shown))) == tree(inspect.getsource(getattr(model, shown)))


@pytest.mark.parametrize("name", ["mnist/7", "mnist/4", "cifar/4"])
def test_the_short_classes_of_notebook_04_are_the_package_s_without_what_it_adds(name):
    sources = [ast.unparse(shown_in("04_mlp_mixer", short)) for short in SHORT]
    assert all(len(source.splitlines()) <= 20 for source in sources)
    namespace = dict(vars(model))
    for source in sources:
        exec(source, namespace)
    torch.manual_seed(0)
    package = model.create_mixer(name)
    torch.nn.init.normal_(package.head.weight)
    c = package.config
    short = namespace["MlpMixer"](c["patch_size"], package.num_tokens, c["hidden_dim"], c["tokens_mlp_dim"],
                                  c["channels_mlp_dim"], c["num_blocks"], c["num_classes"], c["in_channels"],
                                  c["gelu"])  # fmt: skip
    assert not short.head.weight.any()
    assert abs(short.stem.proj.weight.std() / package.stem.proj.weight.std() - 1) < 0.15
    short.load_state_dict(package.state_dict())
    images = torch.randn(2, *package.image_shape)
    assert torch.allclose(short(images), package(images), atol=1e-5)


@every_notebook
def test_the_test_images_are_read_once_at_most_and_for_a_finished_model(path):
    names = ast.parse("\n".join(cell.source for cell in code_cells(path)))
    measured = [
        node
        for node in ast.walk(names)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "evaluate" and len(node.args) == 2
    ]
    assert len(measured) <= 1
    named = [
        ast.unparse(node) for node in ast.walk(names) if isinstance(node, ast.Call | ast.Attribute | ast.Subscript)
    ]
    read = [text for text in named if "data.test" in text and not re.search(r"len\(data\.test\)", text)]
    assert set(read) <= {"data.test"}  # how many there are is not secret


@every_notebook
def test_a_notebook_asks_for_four_predictions_at_most_and_its_shapes_have_letters(path):
    text = "\n".join(cell.source for cell in code_cells(path))
    assert "fmt: skip" not in text
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert sum(ast.unparse(call.func) == "ex.predict" for call in calls) <= 4
    for call in calls:
        if ast.unparse(call.func) == "check_shape":
            assert isinstance(call.args[1], ast.Constant | ast.JoinedStr) and call.keywords, ast.unparse(call)
