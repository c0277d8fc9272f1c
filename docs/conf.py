"""The documentation site.

pip install -r requirements-docs.txt
sphinx-build -W -b html docs docs/_build/html

Notebooks run while it is built, and one that fails fails the build; while writing,
`-D nb_execution_mode=off` leaves them out.
"""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]
# Notebooks import the package of this checkout, from wherever they are run.
os.environ["PYTHONPATH"] = str(HERE.parent)
os.environ["JAX_PLATFORMS"] = "cpu"

import vpt_jax  # noqa: E402

REPOSITORY = "vpt-jax/vpt_jax"  # on GitHub; notebooks name it too, a test compares

project = "vpt_jax"
author = "the authors of vpt_jax"
release = version = vpt_jax.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "reference",
]
exclude_patterns = ["_build", "_generated"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing_anchor_in_included"]
default_role = "code"  # `name` in docstrings

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_output_stderr = "remove"  # progress
nb_merge_streams = True
nb_code_prompt_show = "Show code"
nb_code_prompt_hide = "Hide code"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
python_maximum_signature_line_length = 60

html_theme = "furo"
html_title = "vpt_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_context = {"repository": REPOSITORY}
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {
        "color-brand-primary": "#332288",
        "color-brand-content": "#332288",
    },
    "dark_css_variables": {
        "color-brand-primary": "#a99cf0",
        "color-brand-content": "#a99cf0",
    },
}
copybutton_exclude = ".linenos, .gp, .go"
