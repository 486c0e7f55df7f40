"""How Sphinx builds the site: from these pages, the docstrings, the commands and the notebooks, without a network."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generated  # noqa: E402  beside this file
from sphinx.application import Sphinx  # noqa: E402

import featurebank  # noqa: E402

project = "featurebank"
author = "The featurebank founders"
copyright = "2026, the featurebank founders"
version = release = featurebank.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_click",
    "sphinx_design",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
smartquotes = False  # options begin with two hyphens

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks keep their outputs, and the tests execute them

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections name the types
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"featurebank {release}"
html_static_path = ["_static"]
html_css_files = ["featurebank.css"]
html_js_files = ["featurebank.js"]
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "featurebank"},
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}

generated.copy_notebooks(HERE.parent / "notebooks", HERE / "tutorials" / "notebooks")
generated.write_commands(HERE / "reference" / "commands")


def setup(app: Sphinx) -> None:
    """Connect what is made from the code."""
    generated.read_help(app)
