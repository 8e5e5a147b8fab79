"""Sphinx configuration. `make docs` builds the site; every warning is an error."""

import pathlib
import sys

import robo_rl

sys.path.insert(0, str(pathlib.Path(__file__).parent / "_ext"))

project = "robo_rl"
author = "the robo_rl developers"
copyright = "the robo_rl developers, Apache-2.0"  # noqa: A001 - Sphinx's name
release = version = robo_rl.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "command_help",
    "api_pages",
    "docstrings",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"
highlight_language = "default"
# Third-party types are named, not linked: the build needs no network.
nitpicky = False

myst_enable_extensions = ["colon_fence", "attrs_inline", "deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_title = "robo_rl"
html_static_path = ["_static"]
html_css_files = ["robo_rl.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#b3261e",
        "color-brand-content": "#a1231c",
        "color-sidebar-link-text": "#3d4248",
        "color-sidebar-link-text--top-level": "#3d4248",
    },
    "dark_css_variables": {
        "color-brand-primary": "#ff8a80",
        "color-brand-content": "#ff8a80",
        "color-sidebar-link-text": "#c3c8ce",
        "color-sidebar-link-text--top-level": "#c3c8ce",
    },
}
pygments_style = "friendly"
pygments_dark_style = "monokai"

# A class that two modules show is one class: either target is right.
suppress_warnings = ["ref.python"]
