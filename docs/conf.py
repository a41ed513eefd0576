"""How Sphinx makes the manual of these pages: `make docs`, which needs no network."""

from __future__ import annotations

import importlib
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.autodoc.mock import mock  # type: ignore[attr-defined]  # where Sphinx documents it

import colordim

HERE = Path(__file__).parent

project = "colordim"
author = "The colordim developers"
project_copyright = "the colordim developers, Apache License 2.0"
release = version = colordim.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "_static"]
default_role = "literal"  # NumPy style sets the names of parameters in single backquotes
nitpicky = True

# The pages are those that GitHub shows: headings have the anchors that it gives them.
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # the SQL of DuckDB knows words that Pygments does not
highlight_language = "none"  # blocks that name no language are output and shell lines
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

# What the callbacks are made for is not needed to describe them; torch is, as types are unions of its classes.
autodoc_mock_imports = ["fastai", "fastcore", "fastprogress", "lightning", "pytorch_lightning", "transformers"]
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_use_param = False  # types are phrases there ("a sequence of them"); the signature has the exact ones
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]  # as parameters, since "first, last : int" is two of them

html_theme = "furo"
html_title = "colordim"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#31688e", "color-brand-content": "#2a6286"},
    "dark_css_variables": {"color-brand-primary": "#5ec9a0", "color-brand-content": "#63c7b2"},
}

# Types of other libraries: the manual is made without a network, so that their pages cannot be asked.
nitpick_ignore_regex = [
    (r"py:.*", rf"({library})(\..*)?")
    for library in (
        "collections", "fastcore", "hist", "matplotlib", "nn", "np", "npt", "numpy", "os", "pandas", "pathlib", "pd", "torch",
    )
]  # fmt: skip
nitpick_ignore = [
    # Of other libraries, where only checkers import them; autodoc sees the bare name.
    *(("py:class", name) for name in ("Axes", "Figure", "Optimizer", "Sequence")),
    # What arguments may be: the docstrings say so in words.
    *(("py:class", name) for name in ("Choice", "FacetsOf", "Kind", "Kinds", "Layers", "OnFinding", "Phase", "Range")),
    *(("py:class", name) for name in ("StreamKey", "WindowChoice")),
    ("py:class", "colordim.api.T"),  # what observe() gets, it returns
    ("py:class", "RunWidget"),  # as the docstring says, an anywidget.AnyWidget
    ("py:class", "Colorful"),  # a tuple of artists
]

#: Classes that nobody makes by hand, so that what their constructors take is of no use.
RETURNED = {
    "Block",
    "Declined",
    "Diagnosis",
    "Facet",
    "Finding",
    "Number",
    "Recording",
    "Remedy",
    "Run",
    "Stream",
    "UnitWindows",
}

#: Pages of the repository that the manual has under another name.
PAGES = {"README.md": "index", "CHANGELOG.md": "changelog", "CONTRIBUTING.md": "contributing"}

_LINK = re.compile(r"(\]\()([^)\s]+)(?=[)\s])")


def resolve(target: str, folder: Path, root: Path = HERE.parent) -> str | None:
    """Return what a link that GitHub follows leads to on the site; None if the page that it is on need not change.

    Parameters
    ----------
    target : str
        As it stands in a page, such as ``../README.md#use-it``.
    folder : Path
        From which it is meant: that of the page, or the root for pages that the manual includes from there.
    root : Path
        Of the repository.

    Returns
    -------
    str or None
        A path from the root of the manual (``/performance.md#gpu``), where one page stands for another; MyST offers files
        outside of the manual for download.
    """
    path, hash_, heading = target.partition("#")
    if not path or re.match(r"[a-z][a-z0-9+.-]*:|/", path):
        return None
    file = Path(os.path.normpath(folder / path))
    if file.is_relative_to(root) and (page := PAGES.get(file.relative_to(root).as_posix())):
        # Its headings are those of the page that includes it; the front page has its own.
        return f"/{page}.md{hash_ + heading if page != 'index' else ''}"
    if folder == root:
        docs = root / "docs"
        return f"/{file.relative_to(docs).as_posix()}{hash_}{heading}" if file.is_relative_to(docs) else f"/../{path}"
    return None


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Adapt the links of a page, and put the file in that it stands for."""
    folder = (HERE / docname).parent
    text = source[0]
    for name, page in PAGES.items():
        if docname == page != "index":
            folder, text = HERE.parent, (HERE.parent / name).read_text("utf-8")
            app.env.note_dependency(str(HERE.parent / name))
    source[0] = _LINK.sub(lambda match: match[1] + (resolve(match[2], folder) or match[2]), text)
    if docname == "cards/index":  # the bar at the side has the cards in the order in which that page links to them
        cards = {path.stem for path in folder.glob("*.md")} - {"index"}
        linked = [name for name in dict.fromkeys(re.findall(r"\]\(([\w-]+)\.md\)", text)) if name in cards]
        lines = ["```{toctree}", ":hidden:", "", *linked, *sorted(cards - set(linked)), "```"]
        source[0] += "\n\n" + "\n".join(lines) + "\n"


@cache
def _public_names() -> dict[str, str]:
    """Return under which name the manual has what is defined elsewhere: ``colordim.api.Recording`` as ``colordim.Recording``."""
    names = {"colordim.run.Run": "colordim.Run"}
    with mock(autodoc_mock_imports):
        for module in (
            "colordim",
            "colordim.diagnosis",
            "colordim.fastai",
            "colordim.lightning",
            "colordim.huggingface",
        ):
            loaded = importlib.import_module(module)
            for name in loaded.__all__:
                thing = getattr(loaded, name)
                if getattr(thing, "__module__", module) != module and hasattr(thing, "__qualname__"):
                    names[f"{thing.__module__}.{thing.__qualname__}"] = f"{module}.{name}"
    return names


def find(app: Sphinx, env: BuildEnvironment, node: Any, content: nodes.TextElement) -> nodes.Element | None:
    """Find what is named by where it is defined, or briefly."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    wanted = [
        public + target.removeprefix(private)
        for private, public in _public_names().items()
        if target == private or target.startswith(f"{private}.")
    ]
    wanted += [f"{module}.{target.removeprefix('colordim.')}" for module in ("colordim.errors", "colordim.column")]
    domain = env.domains["py"]
    links = (domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content) for name in wanted)
    return next((link for link in links if link is not None), None)


def whole(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Put back what napoleon has taken for the type of a property: the words before a colon, as in "Two kinds: a and b"."""
    types = [i for i, line in enumerate(lines) if line.startswith(":type:")]
    if what in ("attribute", "data", "property") and types:
        lines[0] = f"{lines.pop(types[0]).removeprefix(':type: ')}: {lines[0]}"


def shorten(app: Sphinx, what: str, name: str, *_: Any) -> tuple[str, str] | None:
    """Leave the constructors of classes out that are only returned."""
    return ("", "") if what == "class" and name.rpartition(".")[2] in RETURNED else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the above."""
    app.connect("source-read", read)
    app.connect("missing-reference", find)
    app.connect("autodoc-process-docstring", whole, priority=600)  # after napoleon
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
