"""Parts of pages that are written from other files when the site is built."""

import dataclasses
import inspect
import pathlib
import re

from vpt_jax import cli, methods

CONTRIBUTING = pathlib.Path(__file__).parents[2] / "CONTRIBUTING.md"


def setup(app) -> dict:
    """Write them before any page is read."""
    folder = pathlib.Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    for make in (modes, flags, method_options, contributing):
        (folder / f"{make.__name__}.md").write_text(make())
    return {"parallel_read_safe": True}


def modes() -> str:
    """The modes of the command line."""
    rows = [
        (f"`{name}`", _first_line(function)) for name, function in cli.MODES.items()
    ]
    return _table(("`--mode`", "does"), rows)


def flags() -> str:
    """The flags of the command line."""
    found = cli.flags.FLAGS.flags_by_module_dict()[cli.__name__]
    rows = [(f"`--{one.name}`", _default(one.default), _help(one)) for one in found]
    return _table(("flag", "default", "of which modes, and what"), sorted(rows))


def method_options() -> str:
    """A section for each method."""
    return "\n".join(_method(name, recipe) for name, recipe in methods.METHODS.items())


def _help(flag) -> str:
    """Without what absl adds of itself."""
    text = " ".join(flag.help.split())
    text = text.replace("; repeat this option to specify a list of values", "")
    allowed = re.match(r"<(.*?)>: ", text)
    if not allowed:
        return text
    names = ", ".join(f"`{name}`" for name in allowed[1].split("|"))
    return f"{text[allowed.end() :]} {names}"


def contributing() -> str:
    """CONTRIBUTING.md with links as a page of the site has them."""
    return re.sub(r"\[([^]]*)\]\(([^):]+)\)", _from_docs, CONTRIBUTING.read_text())


def _from_docs(link: re.Match) -> str:
    """A page, or a file to be downloaded; what is neither, a folder, is a word."""
    text, target = link.groups()
    path = CONTRIBUTING.parent / target
    if target.startswith("docs/"):
        return f"[{text}]({target.removeprefix('docs/')})"
    loadable = path.is_file() and path.suffix != ".md"
    return f"[{text}](../{target})" if loadable else f"`{text}`"


def _method(name: str, recipe) -> str:
    names = [name, *(alias for alias in recipe.aliases)]
    if recipe.number:
        names.append(f"{name}-NUMBER")
    about, _, more = (inspect.getdoc(recipe.module) or "").partition("\n")
    text = f"(method-{name})=\n## {' '.join(f'`{n}`' for n in names)}\n\n{about}\n\n"
    formula = re.match(r"\n((?:    .*\n)+)", more)
    if formula:
        text += f"```text\n{inspect.cleandoc(formula[1])}\n```\n\n"
    if recipe.number:
        text += f"NUMBER is `{recipe.number}`.\n\n"
    meanings = _attributes(recipe.config)
    rows = [
        (f"`{field.name}`", _default(field.default), meanings[field.name])
        for field in dataclasses.fields(recipe.config)
    ]
    return text + (_table(("option", "default", "meaning"), rows) if rows else "")


def _attributes(of: type) -> dict[str, str]:
    """The entries of the section 'Attributes' of a docstring."""
    section = (inspect.getdoc(of) or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    ([\w, ]+): ((?:.*\n?)(?:^ {8}.*\n?)*)", section, re.M)
    return {
        name: " ".join(text.split())
        for names, text in entries
        for name in names.split(", ")
    }


def _first_line(of) -> str:
    return (inspect.getdoc(of) or "").partition("\n\n")[0].replace("\n", " ")


def _default(value) -> str:
    return "" if value is None or value == [] else f"`{value!r}`"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines) + "\n"
