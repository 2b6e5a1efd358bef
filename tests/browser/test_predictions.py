"""Predictions are made by a click: buttons under the cell."""

from helpers import RUN, open_notebook, screenshot

CELLS = [
    "from mixer_utils import exercises as ex",
    'ex.predict("02.1", None)  # 1, 2 or 3',
    'ex.score("02.1", 2)',
]


def test_a_click_on_a_button_is_a_guess_and_the_next_cell_scores_it(page, server):
    open_notebook(page, server, CELLS)
    buttons = page.locator(".widget-toggle-button")
    assert buttons.all_inner_texts() == ["1", "2", "3", "skip"]
    folded = page.locator("details").filter(has_text="What was measured for 02.1")
    assert "Measured: 2." not in folded.inner_text()  # nobody has guessed yet
    folded.locator("summary").click()
    assert "Measured: 2." in folded.inner_text()
    buttons.nth(1).click()
    screenshot(page, "prediction")
    page.evaluate(RUN)
    page.get_by_text("Measured: 2, as you predicted.", exact=True).wait_for()
    chosen = page.locator(".widget-toggle-button.mod-active")
    chosen.wait_for()
    assert chosen.all_inner_texts() == ["2"]  # the cell was run again, and the guess is still there
    assert page.outside == []
