"""The configurations that come with the package are found by name, from anywhere."""

import pathlib
import re
import tomllib
import zipfile

import pytest
from hatchling import build

import vpt_jax
from vpt_jax import cli, shipped
from vpt_jax.storage import paths

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMES = [file.stem for file in sorted((ROOT / "configs").glob("*.py"))]


@pytest.fixture
def resolved(command, monkeypatch, tmp_path):
    """The configuration that a command line gives, in a folder without any."""
    found = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        cli.MODES, "train", lambda _: found.append(cli._CONFIG.value) or 0
    )

    def run(*arguments):
        assert command(*arguments) == (0, "", "")
        return found[-1]

    return run


def test_a_name_is_the_file_of_that_name(resolved):
    named = resolved("--config", "vtab:dtd,linear", "--config.epochs=3")
    path = f"--config={ROOT}/configs/vtab.py:dtd,linear"
    assert named == resolved(path, "--config.epochs=3")
    assert (named.task, named.method.name, named.epochs) == ("dtd", "linear", 3)
    assert resolved("--config=quickstart").task == "digits_photo"
    tuned = resolved("--config=vtab:cifar100,linear,deit_ti16,tuned")
    assert tuned.optim.base_lr == 0.05


def test_a_path_is_a_path(resolved, tmp_path):
    (tmp_path / "vtab.py").write_text(
        "from vpt_jax.config import base\nget_config = lambda: base('svhn')\n"
    )
    assert resolved("--config=vtab.py").task == "svhn"
    assert resolved("--config=vtab:dtd").task == "dtd"


def test_an_unknown_name_is_answered_with_those_there_are(command):
    code, out, err = command("--config=vtba:cifar100")
    [line] = err.splitlines()
    assert (code, out) == (2, "") and line.startswith("error: --config vtba: ")
    assert ", ".join(NAMES) in line and len(NAMES) >= 9


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What `pip install` would unpack."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        name = build.build_wheel(str(folder))
    with zipfile.ZipFile(folder / name) as archive:
        archive.extractall(folder / "site")
    return folder / name, folder / "site"


def test_a_wheel_holds_what_a_run_needs(wheel):
    file, site = wheel
    assert file.stat().st_size < 4e6
    package = ROOT / "vpt_jax"
    wanted = {p.relative_to(ROOT) for p in package.rglob("*") if kept(p)}
    wanted |= {
        pathlib.Path("vpt_jax", p.relative_to(ROOT))
        for p in (ROOT / "configs").iterdir()
        if kept(p)
    }
    found = {p.relative_to(site) for p in (site / "vpt_jax").rglob("*") if kept(p)}
    assert found == wanted
    assert pathlib.Path("vpt_jax/py.typed") in found
    [about] = site.glob("*.dist-info")
    assert about.name == f"vpt_jax-{vpt_jax.__version__}.dist-info"
    assert {p.name for p in site.iterdir()} == {"vpt_jax", about.name}
    scripts = (about / "entry_points.txt").read_text()
    assert "vpt-jax = vpt_jax.cli:main" in scripts


def kept(path):
    return path.is_file() and "__pycache__" not in path.parts


def test_names_in_a_wheel_are_those_of_a_checkout(wheel, monkeypatch):
    monkeypatch.setattr(shipped, "PACKAGE", wheel[1] / "vpt_jax")
    assert shipped.names() == NAMES
    assert pathlib.Path(shipped.located("vtab")).is_relative_to(wheel[1])
    assert pathlib.Path(shipped.located("vtab")).with_name("tuned.csv").is_file()


def test_every_extra_that_an_error_names_exists():
    extras = PROJECT["optional-dependencies"]
    texts = [file.read_text() for file in (ROOT / "vpt_jax").rglob("*.py")]
    named = set(re.findall(r"'vpt_jax\[([\w-]+)\]'", " ".join(texts)))
    assert {"cuda", "hub", "plan-tpu", "prepare", "serve", "torch"} <= named
    assert (named | {"tpu", *paths.EXTRAS.values()}) <= extras.keys()


def test_the_changelog_tells_of_this_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[(\d.*?)\]", text, re.M)[0] == vpt_jax.__version__
