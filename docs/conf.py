"""Sphinx's settings: `make docs` builds build/docs/index.html. Pages load nothing from other hosts."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

import ps3c  # noqa: E402

project = "ps3c"
author = "the ps3c authors"
copyright = author
version = release = ps3c.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "plain_docstrings", "generated_pages"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["pictures/*.md"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
c_maximum_signature_line_length = 100
add_module_names = False

html_theme = "furo"
html_title = f"ps3c {release}"
html_static_path = ["_static"]
html_css_files = ["ps3c.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
