"""The documentation: every page is reached, every link between files leads somewhere,
and notebooks are as they should be committed. Building the site runs them."""

import ast
import json
import pathlib
import re

import pytest

from vpt_jax.config import base
from vpt_jax.methods import METHODS

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))
PAGES = sorted(DOCS.glob("*.md")) + NOTEBOOKS
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _text(path: pathlib.Path) -> str:
    """What is written on a page, without what is inside code blocks."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        text = "\n".join(
            "".join(cell["source"])
            for cell in json.loads(text)["cells"]
            if cell["cell_type"] == "markdown"
        )
    return re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.S | re.M)


def _anchors(path: pathlib.Path) -> set[str]:
    """Of its headings, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.*)$", _text(path), flags=re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading).lower() for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def test_every_page_is_in_one_toctree():
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", _text_of_index(), re.S | re.M)
    entries = [
        re.sub(r".* <(.*)>", r"\1", line)
        for tree in trees
        for line in tree.splitlines()
        if line and not line.startswith(":")
    ]
    pages = (page.relative_to(DOCS).with_suffix("") for page in PAGES)
    assert sorted(entries) == sorted({str(page) for page in pages} - {"index"})


def _text_of_index() -> str:
    return (DOCS / "index.md").read_text()


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES],
    ids=lambda page: page.name,
)
def test_links_between_files_lead_somewhere(page):
    for link in LINK.findall(_text(page)):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor and not (not name and anchor.removeprefix("method-") in METHODS):
            assert anchor in _anchors(target), link


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_no_outputs_and_name_the_repository_of_the_site(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    settings = (DOCS / "conf.py").read_text()
    repository = re.search(r'^REPOSITORY = "(.*?)"', settings, re.M)
    assert repository
    assert f"git+https://github.com/{repository[1]}" in "".join(code[0]["source"])


def test_every_key_is_described_with_its_default():
    text = (DOCS / "configuration.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \| .*\|$", text, re.M)
    config = base("TASK", "METHOD", "BACKBONE")
    known = {}
    for key, value in config.items():
        inner = value.items() if hasattr(value, "items") else ()
        known |= {f"{key}.{name}": entry for name, entry in inner} or {key: value}
    # Options of methods are on a page that is made of their code.
    known = {k: v for k, v in known.items() if k[:7] != "method." or k == "method.name"}
    assert sorted(key for key, _ in rows) == sorted(known)
    for key, default in rows:
        if default.startswith("`") and default.endswith("`"):
            assert ast.literal_eval(default.strip("`")) == known[key], key
        else:
            assert known[key] in (None, "TASK", "METHOD", "BACKBONE"), key
