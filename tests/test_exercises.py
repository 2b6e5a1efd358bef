"""The exercises: what their checks say of right answers, of every mistake in the catalogue, and of code that fails."""

import ast
import functools
import inspect
import json
import os
import re
import resource
import signal
from pathlib import Path

import nbformat
import pytest
import torch
from other_styles import OTHER_STYLES

from mixer_utils import exercises as ex
from mixer_utils.exercises import catalogue, record
from mixer_utils.exercises.catalogue import exercises_of, notebooks, predictions_of
from mixer_utils.exercises.exercise import NOT_YET, Exercise, describe, diagnose, same
from mixer_utils.exercises.shelter import Stopped, in_a_fork, under_a_timer

try:
    from mixer_utils.exercises.solutions import SOLUTIONS
except ModuleNotFoundError:  # a teacher has removed that file
    SOLUTIONS = {}

ROOT = Path(__file__).parent.parent
ALL = {number: exercise for notebook in notebooks() for number, exercise in exercises_of(notebook).items()}
MISTAKES = [(number, sentence) for number, exercise in ALL.items() for sentence in exercise.mistakes]
every_exercise = pytest.mark.parametrize("number", ALL)
with_solutions = pytest.mark.skipif(not SOLUTIONS, reason="this copy comes without solutions")


@pytest.fixture(autouse=True)
def fresh_record(monkeypatch):
    """Nothing answered or guessed so far, and nothing recorded after the test."""
    monkeypatch.setenv("MIXER_EXERCISES", "0")
    monkeypatch.setattr(record, "SESSION", {"exercises": {}, "predictions": {}})
    monkeypatch.setattr(ex, "HINTS_GIVEN", {})
    monkeypatch.setattr(ex, "LATEST", {"notebook": None})


# --- diagnosing, on an exercise of the test's own ---------------------------------------------------------------------

DOUBLE = Exercise(
    reference=lambda x: 2 * x,
    inputs=lambda: [(torch.tensor([0.0, 2.0]),), (torch.tensor([1.0, 3.0]),)],
    mistakes={
        "this squares": lambda x: x * x,
        "this adds up": lambda x: (2 * x).sum(),
        "this multiplies by three numbers": lambda x: x @ torch.zeros(3),
    },
    hints=("Look at the name.", "x is to be multiplied."),
)


def sentence(answer, exercise=DOUBLE):
    return diagnose(exercise, answer).sentence


def test_the_right_answer_is_right():
    assert diagnose(DOUBLE, lambda x: x + x) == (True, "right")
    assert diagnose(DOUBLE, lambda x: (x + x + 1e-6).double()) == (True, "right")


def test_a_mistake_of_the_catalogue_is_told_by_its_sentence_even_where_the_first_input_hides_it():
    assert diagnose(DOUBLE, lambda x: x**2) == (False, "this squares")  # 0 and 2 give 0 and 4 either way
    assert diagnose(DOUBLE, lambda x: x.sum() * 2) == (False, "this adds up")


def test_a_mistake_that_stops_with_an_error_is_told_by_its_sentence_where_the_error_is_the_same():
    assert sentence(lambda x: x.clone() @ torch.ones(3)) == "this multiplies by three numbers"
    assert "expected tensor [2] and src [4]" in sentence(lambda x: x @ torch.zeros(4))


def docstring_alone(x):
    """Twice x."""


@pytest.mark.parametrize("stub", [lambda x: None, lambda x: ..., docstring_alone, None, ...])
def test_an_untouched_stub_is_not_yet_an_answer(stub):
    assert diagnose(DOUBLE, stub) == (None, NOT_YET)
    assert NOT_YET == "not yet — complete the cell above"


def test_a_forgotten_return_is_not_taken_for_a_stub():
    def answer(x):
        x.mul_(2)

    assert diagnose(DOUBLE, answer) == (False, "your function returns None: it ends without a return")


def test_an_answer_that_raises_is_told_by_its_own_line_and_the_message():
    def answer(x):
        return x.reshpe(2)

    line = inspect.getsourcelines(answer)[1] + 1
    assert sentence(answer) == (
        f"your code stopped at line {line} of its cell, return x.reshpe(2) — "
        "AttributeError: 'Tensor' object has no attribute 'reshpe'"
    )
    into_torch = sentence(lambda x: torch.nn.Linear(2, 2).load_state_dict({}))
    assert "sentence(lambda x: torch.nn.Linear(2, 2).load_state_dict({}))" in into_torch  # the last line that is theirs
    assert "RuntimeError: Error(s) in loading state_dict" in into_torch and "\n" not in into_torch
    assert sentence(lambda: 1).endswith("; keep the function's first line as it was")


def test_an_answer_that_asks_for_the_gpu_is_told_that_checks_run_on_the_cpu():
    def answer(x):
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, ...")

    assert sentence(answer).endswith("checks run on the CPU, as their inputs do; leave .to(device) and .cuda() out")


def test_any_other_wrong_answer_is_told_by_its_shape_or_its_distance():
    assert sentence(lambda x: x[:1]) == "the shape is (1,), expected (2,)"
    assert sentence(lambda x: 2 * x + 0.5) == "the shape is right, the values are not: they differ by up to 0.5"
    assert sentence(lambda x: 2 * x / 0 * 0).startswith("there are numbers that are not defined (nan)")
    assert sentence(3) == "the shape is (), expected (2,)"
    assert "'two'" in sentence("two") and sentence("two").endswith("which is not what was asked for")


@pytest.mark.parametrize(
    "answer",
    [(torch.ones(9, 9), torch.ones(9, 9)), {"a": 1}, [1, [2]], object(), torch.nn.Linear(2, 2), 10**400],
    ids=["tensors", "dict", "ragged", "object", "module", "too large"],
)
def test_an_answer_that_is_no_numbers_or_too_large_for_one_is_told_in_one_line(answer):
    told = sentence(lambda x: answer)
    assert told.endswith("which is not what was asked for")
    assert "\n" not in told
    assert len(told) < 300


def test_an_answer_that_changes_its_inputs_is_judged_by_what_they_were():
    assert sentence(lambda x: x.mul_(2)) == "right"
    assert sentence(lambda x: x.mul_(x)) == "this squares"


def test_plain_values_can_be_answers():
    number = Exercise(lambda: 49, lambda: [()], {"that is the side": lambda: 7})
    assert sentence(49, number) == sentence(torch.tensor(49), number) == "right"
    assert sentence(7, number) == "that is the side"
    assert sentence(50, number) == "50 is not right"


def test_results_are_compared_by_shape_and_within_the_tolerance():
    assert same(torch.ones(2), [1.0, 1.00001], 1e-4) and not same(torch.ones(2), [1.0, 1.001], 1e-4)
    assert not same(torch.ones(2, 1), torch.ones(1, 2), 1e-4)
    assert same(3, 3.0, 1e-4) and same("a", "a", 1e-4) and not same("a", 1, 1e-4)
    assert not same(float("nan"), 1.0, 1e-4)
    assert same(KeyError("a"), KeyError("a"), 0) and not same(KeyError("a"), KeyError("b"), 0)
    assert not same(KeyError("a"), ValueError("a"), 0) and not same(KeyError("a"), 1, 0)
    assert describe(2.5, 3) == "2.5 is not right"


# --- the shelter ------------------------------------------------------------------------------------------------------


def forever():
    while True:
        pass


@pytest.mark.parametrize("shelter", [in_a_fork, under_a_timer])
def test_an_endless_loop_is_stopped(shelter):
    with pytest.raises(Stopped, match="still running after 0.2 s.*look for a loop"):
        shelter(forever, 0.2)


@pytest.mark.parametrize("shelter", [in_a_fork, under_a_timer])
def test_what_work_returns_and_prints_comes_back(shelter):
    assert shelter(lambda: print("hello") or 42, 20) == (42, "hello\n")


def test_a_loop_that_swallows_every_exception_is_stopped_all_the_same():
    def stubborn():
        while True:
            try:
                forever()
            except BaseException:
                pass

    with pytest.raises(Stopped, match="still running"):
        in_a_fork(stubborn, 0.2)


def test_a_huge_tensor_is_refused_in_the_answer_s_own_line_and_this_process_keeps_its_limits():
    def answer(x):
        return torch.ones(10**10)

    before = resource.getrlimit(resource.RLIMIT_AS)
    finding, _ = in_a_fork(lambda: diagnose(DOUBLE, answer), 20)
    assert re.fullmatch(
        r"your code stopped at line \d+ of its cell, return torch.ones\(10\*\*10\) — it asked for more memory than .*",
        finding.sentence,
    )
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_code_that_brings_its_process_down_leaves_one_sentence():
    with pytest.raises(Stopped, match=r"brought its process down \(exit status -9\)"):
        in_a_fork(lambda: os.kill(os.getpid(), signal.SIGKILL), 20)  # what a machine does that runs out of memory


def test_tensors_are_multiplied_in_the_shelter_after_they_were_outside_with_all_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = torch.ones(400, 400)
        expected = (x @ x).sum().item()
        assert in_a_fork(lambda: (x @ x).sum().item(), 20) == (expected, "")
    finally:
        torch.set_num_threads(threads)


# --- what a student calls ---------------------------------------------------------------------------------------------


@pytest.fixture
def double(monkeypatch):
    """The catalogue of notebook 02 holds DOUBLE alone, and two predictions."""
    monkeypatch.setattr(catalogue, "exercises_of", lambda notebook: {"02.1": DOUBLE})
    monkeypatch.setattr(catalogue, "predictions_of", lambda notebook: {"02.1": 3, "02.2": 2})
    monkeypatch.setattr(catalogue, "notebooks", lambda: ["02"])


def test_check_prints_the_number_the_sentence_and_where_hints_are(double, capsys):
    ex.check("02.1", lambda x: 2 * x)
    assert capsys.readouterr().out == "02.1: right\n"
    ex.check("02.1", lambda x: x * x)
    assert capsys.readouterr().out == '02.1: this squares\nFor a hint: ex.hint("02.1")\n'
    ex.check("02.1", None)
    assert capsys.readouterr().out == f"02.1: {NOT_YET}\n"


def test_check_shows_what_the_answer_printed_but_not_without_end(double, capsys):
    ex.check("02.1", lambda x: print("x is", x.tolist()) or 2 * x)
    assert capsys.readouterr().out == "Your code printed:\n  x is [0.0, 2.0]\n  x is [1.0, 3.0]\n02.1: right\n"
    ex.check("02.1", lambda x: [print(i) for i in range(1000)] and 2 * x)
    assert len(capsys.readouterr().out.splitlines()) == 23


def test_an_endless_answer_ends_in_one_sentence(double, capsys, monkeypatch):
    monkeypatch.setattr(ex, "sheltered", lambda work: in_a_fork(work, 0.2))
    ex.check("02.1", lambda x: forever())
    assert capsys.readouterr().out.startswith("02.1: your code was still running after 0.2 s and was stopped")


@pytest.mark.parametrize("number", ["99.1", "02.99", "", "two", 2.1, None])
@pytest.mark.parametrize("call", [lambda n: ex.check(n, 1), ex.hint, ex.solution, ex.predict, lambda n: ex.score(n, 1)])
def test_a_number_that_does_not_exist_is_told_with_those_that_do(call, number):
    offered = '(numbers look like "02.1"|notebook 02 has 02.1, 02.2)'
    with pytest.raises(ValueError, match=f"no (exercise|prediction) {re.escape(repr(number))}.*{offered}"):
        call(number)


def test_each_call_of_hint_gives_one_more_and_at_the_end_all_again(double, capsys):
    said = []
    for _ in range(4):
        ex.hint("02.1")
        said.append(capsys.readouterr().out.splitlines())
    first = "Hint 1 of 2: Look at the name."
    second = "Hint 2 of 2: x is to be multiplied."
    assert said[:2] == [[first], [second]]
    assert said[2] == said[3] == [first, second, 'These are all hints. ex.solution("02.1") shows a solution.']


def test_the_solution_shown_is_the_source_of_what_the_tests_run(capsys):
    for number, solution in SOLUTIONS.items():
        ex.solution(number)
        assert capsys.readouterr().out.rstrip() == inspect.getsource(solution).rstrip()


def test_a_guess_is_scored_against_what_was_measured(double, capsys):
    ex.predict("02.1", 2)
    ex.score("02.1", 2)
    ex.predict("02.1", 3)
    ex.score("02.1", torch.tensor(2))
    ex.predict("02.2")
    ex.score("02.2", 1)
    assert capsys.readouterr().out.splitlines() == [
        "Your guess: 2.",
        "Measured: 2, as you predicted.",
        "Your guess: 3.",
        "Measured: 2, not 3.",
        "No guess yet: put 1 or 2 in place of None, or go on without.",
        "Measured: 1.",
    ]


@pytest.mark.parametrize("guess", [0, 4, "2", 1.5])
def test_a_guess_that_is_no_choice_is_told_with_the_choices(double, guess):
    with pytest.raises(ValueError, match=f"02.1 is {guess!r}: put 1, 2 or 3 there, or None"):
        ex.predict("02.1", guess)


def test_what_was_measured_must_be_a_choice(double):
    with pytest.raises(ValueError, match="02.1 is 4, which is none of 1 to 3"):
        ex.score("02.1", 4)


def test_where_there_is_a_kernel_a_click_on_a_button_is_a_guess(double, monkeypatch, capsys):
    import IPython.display

    shown = []
    monkeypatch.setattr("IPython.get_ipython", lambda: type("Shell", (), {"kernel": True})())
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append(data))
    from ipywidgets import ToggleButtons, Widget

    made = []
    monkeypatch.setattr(Widget, "_widget_construction_callback", staticmethod(made.append))
    ex.predict("02.1")
    (buttons,) = [widget for widget in made if isinstance(widget, ToggleButtons)]
    assert [label for label, _ in buttons.options] == ["1", "2", "3", "skip"]
    assert shown[0]["application/vnd.jupyter.widget-view+json"]["model_id"] == buttons.model_id
    assert shown[0]["text/plain"] == "No guess yet: put 1, 2 or 3 in place of None, or go on without."
    buttons.value = 3
    ex.score("02.1", 3)
    buttons.value = None
    ex.score("02.1", 3)
    assert capsys.readouterr().out == "Measured: 3, as you predicted.\n"
    assert shown[-1]["text/plain"] == "Measured: 3." and shown[-1]["text/html"].startswith("<details><summary>")


def test_progress_tells_exercise_by_exercise_and_over_the_series(double, capsys):
    ex.check("02.1", lambda x: x * x)
    ex.predict("02.2", 1)
    ex.score("02.2", 1)
    capsys.readouterr()
    ex.progress()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "02.1 begun"
    assert re.fullmatch(r"02 +0 of 1 +1 of 2 +1", lines[3])
    ex.check("02.1", lambda x: 2 * x)
    ex.check("02.1", lambda x: x * x)
    capsys.readouterr()
    ex.progress()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "02.1 done"  # once right, it stays done while one plays on
    assert re.fullmatch(r"02 +1 of 1 +1 of 2 +1", lines[3])


# --- the record -------------------------------------------------------------------------------------------------------


def test_what_was_done_is_kept_for_the_next_notebook(double, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MIXER_EXERCISES", str(tmp_path / "new" / "record.json"))
    ex.check("02.1", lambda x: 2 * x)
    ex.predict("02.1", 2)
    monkeypatch.setattr(record, "SESSION", {"exercises": {}, "predictions": {}})  # another kernel
    ex.score("02.1", 2)
    assert "as you predicted" in capsys.readouterr().out
    stored = json.loads((tmp_path / "new" / "record.json").read_text(encoding="utf-8"))
    assert stored == {
        "exercises": {"02.1": {"done": True, "passed": True, "sentence": "right"}},
        "predictions": {"02.1": {"guess": 2, "measured": 2}},
    }
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["record.json"]


def test_a_damaged_record_is_put_aside_and_not_written_over(double, tmp_path, monkeypatch):
    monkeypatch.setenv("MIXER_EXERCISES", str(tmp_path / "record.json"))
    (tmp_path / "record.json").write_text('{"exercises": ', encoding="utf-8")
    ex.predict("02.1", 2)
    assert (tmp_path / "record.damaged").read_text(encoding="utf-8") == '{"exercises": '
    assert json.loads((tmp_path / "record.json").read_text())["predictions"] == {"02.1": {"guess": 2}}


def test_where_nothing_can_be_written_the_session_goes_on(double, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MIXER_EXERCISES", str(tmp_path / "file" / "record.json"))
    ex.predict("02.1", 2)
    ex.score("02.1", 2)
    assert "as you predicted" in capsys.readouterr().out


@pytest.mark.parametrize("no", ["0", "no", "False"])
def test_where_a_record_is_not_wanted_none_is_kept(no, monkeypatch):
    monkeypatch.setenv("MIXER_EXERCISES", no)
    assert record.file() is None


def test_without_a_named_file_the_record_lies_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MIXER_EXERCISES")
    monkeypatch.setenv("MIXER_DATA", str(tmp_path))
    assert record.file() == tmp_path / "exercises.json"


# --- the catalogue ----------------------------------------------------------------------------------------------------


def test_every_notebook_of_the_series_has_exercises_and_predictions():
    assert notebooks() == [path.stem[:2] for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


@pytest.mark.parametrize("notebook", notebooks())
def test_exercises_and_predictions_are_numbered_one_after_the_other(notebook):
    exercises = exercises_of(notebook)
    predictions = predictions_of(notebook)
    assert list(exercises) == [f"{notebook}.{i + 1}" for i in range(len(exercises))]
    assert list(predictions) == [f"{notebook}.{i + 1}" for i in range(len(predictions))]
    assert len(exercises) == 2 if notebook == "00" else 3 <= len(exercises) <= 5
    assert all(type(choices) is int and 2 <= choices <= 6 for choices in predictions.values())


@every_exercise
def test_every_exercise_has_the_one_format(number):
    exercise = ALL[number]
    assert type(exercise) is Exercise
    assert callable(exercise.reference)
    inputs = exercise.inputs()
    assert type(inputs) is list
    assert {type(case) for case in inputs} == {tuple}
    assert type(exercise.mistakes) is dict
    assert {type(told) for told in exercise.mistakes} == {str}
    assert all(map(callable, exercise.mistakes.values()))
    assert type(exercise.hints) is tuple
    assert {type(hint) for hint in exercise.hints} == {str}


@pytest.mark.parametrize("notebook", notebooks())
def test_a_module_of_the_catalogue_knows_nothing_of_the_engine_but_what_an_exercise_is(notebook):
    source = inspect.getsource(catalogue.module_of(notebook))
    assert re.findall("mixer_utils.exercises.*", source) == ["mixer_utils.exercises.exercise import Exercise"]
    assert "fmt:" not in source  # the formatter alone decides how the tables look


@with_solutions
def test_every_exercise_has_a_solution_another_style_hints_and_four_mistakes():
    assert list(SOLUTIONS) == list(OTHER_STYLES) == list(ALL)
    for number, exercise in ALL.items():
        assert len(exercise.mistakes) >= 4, number
        assert 2 <= len(exercise.hints) <= 4, number
        assert OTHER_STYLES[number], number


@with_solutions
@every_exercise
def test_the_reference_the_solution_and_the_other_styles_are_right(number):
    for answer in [ALL[number].reference, SOLUTIONS[number], *OTHER_STYLES[number]]:
        assert diagnose(ALL[number], answer) == (True, "right")


@with_solutions
@every_exercise
def test_the_other_styles_are_written_otherwise(number):
    def tree(function):
        source = inspect.getsource(function).strip().rstrip(",")
        try:
            return ast.dump(ast.parse(source))
        except SyntaxError:  # a lambda inside a longer line
            return source

    assert len({tree(answer) for answer in [SOLUTIONS[number], *OTHER_STYLES[number]]}) > 1


@every_exercise
def test_an_untouched_function_is_not_yet_an_answer(number):
    assert diagnose(ALL[number], lambda *inputs: None).passed is None


@pytest.mark.parametrize("number, told", MISTAKES)
def test_every_mistake_is_told_by_its_own_sentence(number, told):
    assert diagnose(ALL[number], ALL[number].mistakes[told]) == (False, told)
    assert told == " ".join(told.split()) and len(told.split()) >= 4


@every_exercise
def test_the_inputs_are_the_same_at_every_try_and_of_several_sizes(number):
    exercise = ALL[number]
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append([exercise.reference(*inputs) for inputs in exercise.inputs()])
    assert len(results[0]) >= 2
    assert all(same(a, b, exercise.tolerance) for a, b in zip(*results, strict=True))


@every_exercise
@pytest.mark.parametrize(
    "answer", [0, -1.5, torch.zeros(3), torch.full((2, 3), float("nan")), "seven", [], (1, 2)], ids=str
)
def test_whatever_is_answered_one_sentence_comes_back(number, answer):
    finding = diagnose(ALL[number], lambda *inputs: answer)
    assert finding.passed is False and finding.sentence and "\n" not in finding.sentence


# --- the notebooks and the catalogue belong together ------------------------------------------------------------------


@functools.cache
def cells(notebook):
    (path,) = (ROOT / "notebooks").glob(f"{notebook}_*.ipynb")
    return nbformat.read(path, as_version=4).cells


@pytest.mark.parametrize("notebook", notebooks())
def test_each_exercise_is_asked_completed_and_checked_once_in_order(notebook):
    asked = [number for cell in cells(notebook) for number in re.findall(r"### Exercise (\d\d\.\d) · ", cell.source)]
    checked = [
        number for cell in cells(notebook) for number in re.findall(r'^ex\.check\("([\d.]+)"', cell.source, re.M)
    ]
    assert asked == checked == list(exercises_of(notebook))


@pytest.mark.parametrize("notebook", notebooks())
def test_each_prediction_is_asked_before_it_is_scored_by_what_was_measured(notebook):
    predictions = predictions_of(notebook)
    sources = [cell.source for cell in cells(notebook)]
    for number, choices in predictions.items():
        (asked,) = [i for i, source in enumerate(sources) if source.startswith(f'ex.predict("{number}", None)')]
        listed = ", ".join(str(i + 1) for i in range(choices - 1)) + f" or {choices}"
        assert sources[asked] == f'ex.predict("{number}", None)  # {listed}'
        question = "\n".join(sources[max(0, asked - 3) : asked])
        assert "redict" in question and re.findall(r"^(\d)\. ", question, re.M)[-1] == str(choices)
        (scored,) = [i for i, source in enumerate(sources) if f'ex.score("{number}", ' in source]
        assert asked < scored
        measured = re.search(rf'ex\.score\("{number}", (.*)\)', sources[scored]).group(1)
        assert not re.fullmatch(r"\d", measured), f"{number} is scored against a constant"
    text = "\n".join(sources)
    assert sorted(set(re.findall(r'ex\.(?:predict|score)\("([\d.]+)"', text))) == list(predictions)
