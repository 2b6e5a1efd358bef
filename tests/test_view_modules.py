"""The front-end's modules: genuine ES modules that name what they share, and one script when they are joined."""

import re
import shutil
import subprocess
import sys
import threading
import types

import pytest

from mixer_utils.widgets import front_end
from mixer_utils.widgets.front_end import DEFINED, FOLDER, IMPORT, in_order, joined, read
from mixer_utils.widgets.training import explore_training

MODULES = sorted(path.stem for path in FOLDER.glob("*.js"))
EXPORTED = re.compile(r"^export (?:async function|function|class|const) (\w+)", re.MULTILINE)
COMMENT_OR_TEXT = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL)


def imported(source):
    """The names that a module imports: {name: the module it is taken from}."""
    return {
        name.strip(): module for names, module in IMPORT.findall(source) for name in names.split(",") if name.strip()
    }


def code(source):
    """A module without imports, comments and texts; what stands in the ${} of a `text` stays."""
    source = IMPORT.sub("", source)
    result = []
    inside = []  # of each `text` around this place: None in its letters, the number of open braces in a ${}
    at = 0
    while at < len(source):
        letter = source[at]
        in_text = bool(inside) and inside[-1] is None
        skipped = None if in_text else COMMENT_OR_TEXT.match(source, at)
        step = 1
        if skipped:
            step = len(skipped[0])
        elif letter == "`":
            inside.pop() if in_text else inside.append(None)
        elif in_text and source.startswith("${", at):
            inside.append(0)
            step = 2
        elif in_text:
            step = 2 if letter == "\\" else 1
        elif inside and letter == "}" and inside[-1] == 0:
            inside.pop()
        else:
            if inside:
                inside[-1] += (letter == "{") - (letter == "}")
            result.append(letter)
        if not result or result[-1] != letter:
            result.append(" ")
        at += step
    return "".join(result)


def uses(name, text):
    """Whether a name stands in code, as neither a property nor a key."""
    return re.search(rf"(?<![\w$])(?<!(?<!\.\.)\.){name}(?![\w$])(?!\s*:[^:])", text) is not None


def declares(name, text):
    """Whether a name is also that of something local: a constant, a method, or what a function is given."""
    constant = rf"\b(?:const|let)\b[^;=]*\b{name}\b|,\s*{name} =[^=]"
    given = rf"\([^()]*\b{name}\b[^()]*\)\s*(?:=>|\{{)"
    method = rf"^  (?:static )?(?:async )?{name}\([^()]*\) \{{"
    return re.search(f"{constant}|{given}|{method}", text, re.MULTILINE) is not None


@pytest.mark.parametrize("name", MODULES)
def test_every_imported_name_is_exported_where_it_is_taken_from_and_used(name):
    source = read(name)
    for wanted, module in imported(source).items():
        assert wanted in EXPORTED.findall(read(module)), f"{module}.js does not export {wanted}."
        assert uses(wanted, code(source)), f"{name}.js imports {wanted} and has no use for it."
    assert source.count("\nimport ") + source.startswith("import ") == len(IMPORT.findall(source))


@pytest.mark.parametrize("name", MODULES)
def test_every_name_of_another_module_is_imported(name):
    source = read(name)
    known = {*imported(source), *DEFINED.findall(source)}
    for other in MODULES:
        for defined in DEFINED.findall(read(other)):
            if defined not in known and not declares(defined, code(source)):
                assert not uses(defined, code(source)), f"{name}.js uses {defined} of {other}.js: import it."


def test_a_use_without_an_import_is_noticed():
    assert uses("signed", code("const text = `a ${signed(1)} b`; // signed")) and uses("units", "f(...units)")
    assert not uses("signed", code('const text = "signed" + this.signed; const o = { signed: 1 }; /* signed */'))
    assert declares("step", "class A {\n  async step() {") and not declares("step", "step();")
    assert declares("left", "const [left, right] = [1, 2];") and not declares("left", "const a = left(1);")


def test_joined_every_module_stands_below_those_it_imports_and_nothing_is_left_to_import():
    for entry in ("index", "page", "trainer_worker"):
        order = in_order(entry)
        assert order[-1] == entry and len(order) == len(set(order))
        for at, name in enumerate(order):
            assert set(imported(read(name)).values()) <= set(order[:at])
        script = joined(entry)
        assert not re.search(r"^import |^export (?!default)", script, re.MULTILINE)
        assert script.count("export default") == (entry == "index")
    assert {*in_order("page"), *in_order("trainer_worker")} == set(MODULES)


def write(folder, **modules):
    for name, source in modules.items():
        (folder / f"{name}.js").write_text(source, encoding="utf-8")
    return folder


def test_two_modules_that_define_the_same_name_are_refused(tmp_path):
    write(tmp_path, top='import { f } from "./one.js";\nimport { g } from "./two.js";\n',
          one="export function f() {}\nconst SIZE = 1;\n", two="export function g() {}\nconst SIZE = 2;\n")  # fmt: skip
    with pytest.raises(ValueError, match=r"one\.js and two\.js both define SIZE: rename one"):
        joined("top", tmp_path)


def test_imports_in_a_circle_are_refused(tmp_path):
    write(tmp_path, one='import { g } from "./two.js";\n', two='import { f } from "./one.js";\n')
    with pytest.raises(ValueError, match="circle, one -> two -> one"):
        joined("one", tmp_path)


def test_a_module_is_joined_once_and_imports_may_run_over_lines(tmp_path):
    write(tmp_path, top='import {\n  f,\n  g,\n} from "./one.js";\nimport { h } from "./two.js";\nf(g, h);\n',
          two='import { f } from "./one.js";\nexport const h = f;\nexport default { h };\n',
          one="export function f() {}\nexport async function g() {}\n")  # fmt: skip
    assert joined("top", tmp_path) == "function f() {}\nasync function g() {}\n\nconst h = f;\n\nf(g, h);\n"


@pytest.fixture
def node():
    path = shutil.which("node")
    if path is None:
        pytest.skip("node is not here to load the modules: install it")
    return lambda script, *paths: subprocess.run(
        [path, "--input-type=module", "-e", script, *map(str, paths)], capture_output=True, text=True
    )


LOAD = "globalThis.document = { querySelectorAll: () => [], getElementById: () => null }; globalThis.location = {}; "
LOAD += "globalThis.location.hash = ''; globalThis.window = globalThis; await import(process.argv[1]);"


def test_every_file_loads_as_an_es_module(node, tmp_path):
    copies = tmp_path / "modules"
    shutil.copytree(FOLDER, copies, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (copies / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    for name in MODULES:
        result = node(LOAD, copies / f"{name}.js")
        assert result.returncode == 0, result.stderr
    (copies / "kit.js").write_text("export const SORTS = {};\n", encoding="utf-8")
    assert "does not provide an export" in node(LOAD, copies / "mixing.js").stderr


@pytest.mark.parametrize("entry", ["index", "page", "trainer_worker"])
def test_the_joined_script_loads_as_one_module(node, tmp_path, entry):
    path = tmp_path / "joined.mjs"
    path.write_text(joined(entry), encoding="utf-8")
    result = node(LOAD, path)
    assert result.returncode == 0, result.stderr


def test_while_the_front_end_is_worked_on_an_open_view_takes_each_saved_file(monkeypatch):
    saved, taken = threading.Event(), threading.Event()

    def watch(folder):
        assert folder == FOLDER
        saved.wait(60)
        yield {("modified", "mixing.js")}
        taken.set()

    monkeypatch.setitem(sys.modules, "watchfiles", types.SimpleNamespace(watch=watch))
    monkeypatch.setenv("ANYWIDGET_HMR", "1")
    view = explore_training()
    before = view._esm
    monkeypatch.setattr(front_end, "joined", lambda entry: f"// {entry} anew")
    saved.set()
    assert taken.wait(60) and before.endswith("export default { render };\n") and view._esm == "// index anew"
