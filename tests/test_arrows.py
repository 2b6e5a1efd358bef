"""Inside the package arrows go one way: a module imports from those above it here, and every module is in the list."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mixer_utils"
# From what everything rests on to what rests on everything. A room stands for all modules in its folder, and imports
# between those have an order of their own below.
ORDER = """
    _files _threads _file_kinds _pictures photograph _image_folder data _split_check augmentation recipes
    _departures model baselines mixing resolution devices _processes optimizers checkpoints official published
    snapshots evaluation _run training plotting diagrams drawings notebook exercises widgets first_cell __main__
""".split()
ROOMS = {
    "drawings": [*sorted(path.stem for path in (PACKAGE / "drawings").glob("nb*.py")), "__init__"],
    "exercises": "exercise catalogue cells record shelter solutions grading __init__".split(),
    "widgets": "front_end base mixing influence digit embedding training learn network __init__ page".split(),
}
DOORS = {"__init__", "__main__", "first_cell", "diagrams"}


def name_of(path):
    """ "data", or "exercises.catalogue" for any module below that folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:2]) if parts[0] in ROOMS else parts[0]


def imported(source, names):
    """The modules of the package that a module imports, wherever in it: {"data", "exercises.catalogue"}."""
    result = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        for module in modules:
            parts = module.split(".")
            if parts[0] == "mixer_utils":
                result |= {".".join(parts[1:end]) for end in (2, 3)} & names
    return result


MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
NAMES = {name_of(path) for path in MODULES} | set(ORDER)


def place(name):
    """Where a module stands: (place in the package, place in its room)."""
    room, _, inner = name.partition(".")
    return ORDER.index(room), ROOMS[room].index(inner) if inner else 0


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_before_it(path):
    name = name_of(path)
    if name == "__init__":
        return  # the door that names everything; it imports nothing before it is asked
    used = imported(path.read_text(encoding="utf-8"), NAMES) - {name}
    for other in used:
        if other in ROOMS and name.startswith(f"{other}."):
            continue  # "from mixer_utils.widgets import base": the folder itself
        assert place(other) < place(name), f"{name} imports {other}"
        assert other not in DOORS - {"diagrams"}, f"{name} imports a door, {other}"


def test_every_module_and_room_is_in_the_list():
    assert {name.partition(".")[0] for name in NAMES} - {"__init__"} == set(ORDER)
    for room, inner in ROOMS.items():
        assert {name.partition(".")[2] for name in NAMES if name.startswith(f"{room}.")} == set(inner)


def test_nobody_uses_the_figures_of_the_architecture_but_notebooks():
    for path in MODULES:
        assert "diagrams" not in imported(path.read_text(encoding="utf-8"), NAMES), path


def test_nobody_outside_the_package_imports_its_machinery():
    root = PACKAGE.parent
    outside = [*root.glob("tools/*.py"), *root.glob("benchmarks/*.py"), *root.glob("figures/*.py")]
    machinery = {name for name in NAMES if name.startswith("_") and name.strip("_") not in ("init", "main")}
    assert len(outside) > 8 and len(machinery) == 9
    for path in outside:
        assert imported(path.read_text(encoding="utf-8"), NAMES) & machinery == set(), path


def test_an_arrow_that_goes_back_is_seen():
    source = "from mixer_utils.training import train\nfrom mixer_utils import data"
    assert imported(source, NAMES) == {"training", "data"}
    assert imported("def f():\n    import mixer_utils.exercises.grading", NAMES) == {"exercises", "exercises.grading"}
    assert place("training") > place("evaluation") > place("checkpoints") > place("model")


def test_the_page_on_the_package_names_every_module_and_room_and_the_reading_is_about_as_long_as_it_says():
    page = (PACKAGE.parent / "docs" / "package.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)\.py`", page)) | set(re.findall(r"`(\w+)/`", page))
    assert set(ORDER) <= named
    to_read = re.findall(r"^\| `(\w+)\.py`", page.partition("## Machinery")[0], re.MULTILINE)
    lines = sum(len((PACKAGE / f"{name}.py").read_text(encoding="utf-8").splitlines()) for name in to_read)
    assert len(to_read) == 14
    assert abs(lines - int(re.search(r"About ([\d,]+) lines", page)[1].replace(",", ""))) < 100
