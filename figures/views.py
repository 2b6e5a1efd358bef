"""Take the picture of the network that README shows, figures/views.png: needs Chromium (see tests/browser)."""

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from mixer_utils.widgets.page import write_explorer

HERE = Path(__file__).parent


def main():
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = write_explorer(folder)
        path = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1240, "height": 1700}, reduced_motion="reduce")
        tab.goto(page.as_uri() + "#network.block=1&network.stage=token+mixing")
        tab.evaluate("mixerViews")
        view = tab.locator(".mixer-network")
        view.locator(".mixer-pane[data-pane='token mixing'] canvas").first.wait_for()
        tab.wait_for_timeout(1000)  # the maps are drawn by then
        view.screenshot(path=HERE / "views.png", animations="disabled")
        browser.close()


if __name__ == "__main__":
    main()
