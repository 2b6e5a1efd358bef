"""Take the picture of the live views that README shows, figures/views.png: needs Chromium (see tests/browser)."""

import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from mixer_utils.widgets.page import write_explorer

HERE = Path(__file__).parent


def main():
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = write_explorer(folder)
        path = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1010, "height": 900})
        tab.goto(page.as_uri())
        tab.evaluate("mixerViews.then((views) => views.get('digit-view').set('hidden', [6]))")
        pictures = []
        for name in ("mixing", "digit"):
            pictures.append(Path(folder) / f"{name}.png")
            tab.locator(f"#{name}-view .mixer-view").screenshot(path=pictures[-1], animations="disabled")
        upper, lower = map(Image.open, pictures)
        both = Image.new("RGB", (upper.width, upper.height + lower.height + 12), "white")
        both.paste(upper, (0, 0))
        both.paste(lower, (0, upper.height + 12))
        both.save(HERE / "views.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
