"""Sphinx's settings for the website; tools/website.py builds it (`make site`)."""

import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "MLP-Mixer, from one patch to a trained network"
author = "the authors of this tutorial"
version = release = PROJECT["version"]
language = "en"
extensions = ["myst_nb"]
exclude_patterns = ["README.md"]  # lies in the source to be included in parts

nb_execution_mode = "off"  # the pages show the outputs that the notebooks were saved with
nb_ipywidgets_js = {}  # the views bring what they need (tools/website.py)
nb_merge_streams = True
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_copy_source = True  # the download button's file
html_use_index = False
html_show_search_summary = False  # a page opened from disk may not read other pages to quote them
html_show_copyright = False
html_last_updated_fmt = None
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_theme_options = {
    "repository_url": PROJECT["urls"]["Repository"],
    "repository_branch": "main",
    "use_repository_button": True,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "navbar_persistent": [],
    "show_toc_level": 2,
    "footer_content_items": [],
    "logo": {"text": "MLP-Mixer"},
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"**": ["navbar-logo.html", "search-button-field.html", "sbt-sidebar-nav.html"]}
