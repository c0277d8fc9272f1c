"""What goes to the Hub and what is taken from it, as far as it can be seen without."""

import json

import pytest
from exchange import made

import vpt_jax
from vpt_jax import export
from vpt_jax.errors import UserError
from vpt_jax.exchange import hub as pushing
from vpt_jax.storage import hub


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A folder that stands for hf://me/task, and its backbone."""
    folder = made.make(tmp_path, "export", "tiny_vit", "linear")
    manifest = json.loads((folder / "manifest.json").read_text())
    write(folder, pushing.portable(manifest))
    monkeypatch.setattr(hub, "snapshot", lambda address, names: (folder, "c0ffee"))
    return folder, str(made.checkpoint(tmp_path, "tiny_vit"))


def write(folder, manifest):
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_nothing_of_this_machine_is_pushed(tmp_path):
    folder = made.make(tmp_path, "export", "tiny_vit", "prompt+lora-2", length=2)
    manifest = export.read_manifest(folder)
    manifest["config"]["task"] = f"folder:{tmp_path}/birds"
    manifest["config"]["data"]["dir"] = str(tmp_path)
    own = pushing.portable(manifest)
    assert str(tmp_path) in json.dumps(manifest)
    assert str(tmp_path) not in json.dumps(own)
    assert own["config"]["task"] == "folder:birds"
    assert own["checkpoint_sha256"] == manifest["checkpoint_sha256"]


def test_the_commit_is_named_where_none_was_asked_for(repository, capsys):
    vpt_jax.load("hf://me/task", repository[1])
    assert "hf://me/task is at c0ffee" in capsys.readouterr().err
    vpt_jax.load("hf://me/task@c0ffee", repository[1])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("named", ["https://example.org/a.npz", "/etc/passwd", ""])
def test_a_manifest_may_name_no_place(repository, named):
    folder, checkpoint = repository
    manifest = export.read_manifest(folder)
    manifest["config"]["backbone"]["checkpoint"] = named
    write(folder, manifest)
    with pytest.raises(UserError, match="only the published file of the backbone"):
        vpt_jax.load("hf://me/task", checkpoint)


def test_a_manifest_must_state_the_hash(repository):
    folder, checkpoint = repository
    manifest = export.read_manifest(folder)
    del manifest["tuned_sha256"]
    write(folder, manifest)
    with pytest.raises(UserError, match="does not state the sha256"):
        vpt_jax.load("hf://me/task", checkpoint)


@pytest.mark.parametrize("address", ["hf://task", "hf://a/b/c", "hf://me/", "hf://"])
def test_no_address(address):
    with pytest.raises(UserError, match="is not of the form hf://owner/name"):
        vpt_jax.load(address)


def test_without_the_library(monkeypatch, tmp_path):
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    for call in (lambda: vpt_jax.load("hf://a/b"), lambda: vpt_jax.push(tmp_path, "a")):
        with pytest.raises(UserError, match="pip install 'vpt_jax\\[hub\\]'"):
            call()
