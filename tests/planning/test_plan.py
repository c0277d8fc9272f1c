"""Plans, on a target whose compiler is here, and what is proposed where none fits."""

import dataclasses
import json

import jax
import pytest
from exchange import made
from flax import nnx
from product import slow

from vpt_jax import backbones
from vpt_jax.errors import UserError
from vpt_jax.planning import plan, target
from vpt_jax.planning.chips import Chip
from vpt_jax.planning.show import show
from vpt_jax.planning.target import Target
from vpt_jax.training import inputs

SMALL = Chip(flops=1e12, bandwidth=1e11, memory=4e9, clock=1e9)


def on_cpu():
    """A GPU, as far as a plan is concerned, that compiles like a CPU."""
    return Target("imagined", "gpu", jax.devices("cpu"), SMALL)


def shrunk(memory):
    return dataclasses.replace(on_cpu(), chip=dataclasses.replace(SMALL, memory=memory))


def test_a_run(tiny):
    found = plan.plan(tiny, on_cpu(), sweep=False)
    assert found["fits"] and found["proposal"] is None
    [stage] = found["stages"]
    assert stage["place"] == inputs.RESIDENT and stage["trials"] == 1
    programs = {p["name"]: p for p in stage["programs"]}
    assert list(programs) == ["init", "chunk", "outputs"]
    chunk = programs["chunk"]
    # 1,000 images in batches of 256, three epochs; 50 test images in one batch
    assert (chunk["calls"], programs["outputs"]["calls"]) == (12, 1)
    assert found["steps"] == 12
    # ---- weights of the backbone in bfloat16, of prompts and head with momentum
    assert stage["bytes"]["weights"] == 2 * 5_360
    # two prompts of 2 x 16 and a head of 170, twice; three curves of an epoch each
    assert stage["bytes"]["state"] >= 2 * 4 * 234
    assert stage["bytes"]["inputs"] == 1000 * (8 * 8 * 3 + 1) * 4
    assert chunk["bytes"]["all"] > stage["bytes"]["inputs"]
    seconds = max(chunk["flops"] / 1e12, chunk["traffic_bytes"] / 1e11)
    assert chunk["seconds"] == pytest.approx(seconds)
    total = sum(p["calls"] * p["seconds"] for p in stage["programs"])
    assert found["seconds"] == pytest.approx(total)
    assert found["chip_hours"] == pytest.approx(total / 3600)
    json.dumps(found)


def test_a_roofline_is_shown_as_the_bound_that_it_is(tiny, capsys):
    found = plan.plan(tiny, on_cpu(), sweep=False)
    show(found)
    out = capsys.readouterr().out
    rows = {row.split()[1]: row for row in out.splitlines() if row.startswith("│")}
    assert "≥" in rows["milliseconds"] and "≤" in rows["images/s"]
    assert "%" not in rows["of"] and "at least" in rows["time"]
    show(found | {"estimate": "a schedule"})
    assert "≥" not in capsys.readouterr().out


def test_what_is_tuned_beside_it_is_planned(tiny):
    tiny.beside = "linear epochs=2"
    probe, run = plan.plan(tiny, on_cpu(), sweep=False)["stages"]
    assert (probe["name"], run["name"]) == ("beside: linear", "the run")
    assert (probe["steps"], run["steps"]) == (8, 12)


@pytest.mark.slow
def test_a_search_and_its_run(tiny):
    tiny.optim.lr, tiny.epochs = "auto", 17
    searched, run = plan.plan(tiny, on_cpu(), sweep=False)["stages"]
    assert (searched["trials"], run["trials"]) == (10, 1)
    # 900 images in batches of 256; one epoch of all rates, three of four
    assert (searched["steps"], run["steps"]) == (4 * (1 + 3), 17 * 4)
    scored = {p["name"]: p["calls"] for p in searched["programs"]}["outputs"]
    assert scored == 2  # 100 images after each round


def test_outputs_of_frozen_blocks_are_planned_as_they_run(tiny):
    tiny.method.name, tiny.method.length = "linear", None
    [stage] = plan.plan(tiny, on_cpu(), sweep=False)["stages"]
    assert stage["place"] == inputs.CACHED
    programs = {p["name"]: p["calls"] for p in stage["programs"]}
    assert programs == {"init": 1, "prefix": 10, "chunk": 12, "outputs": 1}


@pytest.mark.slow
@pytest.mark.parametrize(("every", "scorings"), [(0, 1), (2, 2)])
def test_validation_images_are_scored_as_often_as_a_run_does(tiny, every, scorings):
    """Every so many of the three epochs, and after the last."""
    tiny.data.split, tiny.val_every = "train800", every
    [run] = plan.plan(tiny, on_cpu(), sweep=False)["stages"]
    tiny.sweep.base_lrs, tiny.sweep.weight_decays = (0.3,), (0.0,)
    grid, _ = plan.plan(tiny, on_cpu(), sweep=True)["stages"]
    for stage, test_batches in ((run, 1), (grid, 0)):
        calls = {p["name"]: p["calls"] for p in stage["programs"]}
        assert calls["outputs"] == 2 * scorings + test_batches


@pytest.mark.slow
def test_a_sweep(tiny):
    """Four points, two at once; then two seeds on all images."""
    tiny.sweep.base_lrs, tiny.sweep.weight_decays = (0.3, 0.03), (1e-3, 0.0)
    tiny.sweep.seeds, tiny.sweep.trials = (1, 2), 2
    found = plan.plan(tiny, on_cpu(), sweep=True)
    grid, winner = found["stages"]
    assert (grid["trials"], grid["at_once"]) == (4, 2)
    assert (winner["trials"], winner["at_once"]) == (2, 2)
    assert grid["steps"] == 2 * 3 * 4 and winner["steps"] == 3 * 4
    assert found["steps"] == 36


@pytest.mark.slow
def test_trials_at_once_follow_the_chip(tiny):
    tiny.sweep.base_lrs = tuple(0.1 * n for n in range(1, 5))
    tiny.sweep.weight_decays, tiny.sweep.seeds = (0.0,), (1,)
    [grid, _] = plan.plan(tiny, on_cpu(), sweep=True)["stages"]
    assert grid["at_once"] == 4
    [chunk] = [p for p in grid["programs"] if p["name"] == "chunk"]
    less = shrunk(0.75 * chunk["bytes"]["all"] / plan.SHARE)
    [fewer, _] = plan.plan(tiny, less, sweep=True)["stages"]
    assert 1 <= fewer["at_once"] < 4 and fewer["programs"]


@pytest.mark.slow
def test_what_does_not_fit_comes_with_what_would(tiny):
    """The first proposal that fits when it is compiled in turn."""
    [stage] = plan.plan(tiny, on_cpu(), sweep=False)["stages"]
    needs = {p["name"]: p["bytes"]["all"] for p in stage["programs"]}
    tight = shrunk((max(needs.values()) - 100_000) / plan.SHARE)
    found = plan.plan(tiny, tight, sweep=False)
    assert not found["fits"]
    proposal = found["proposal"]
    assert proposal["tried"][0] == "--config.backbone.remat=True"
    change = dict(
        word.removeprefix("--config.").split("=") for word in proposal["change"].split()
    )
    own = tiny.copy_and_resolve_references()
    own.batch_size = int(change["batch_size"])
    own.backbone.remat = True
    assert plan.plan(own, tight, sweep=False)["fits"]


@pytest.mark.parametrize(
    "backbone", ["tiny_dinov3", slow("tiny_pe"), slow("tiny_eva02")]
)
def test_the_command(command, tiny_flags, tmp_path, monkeypatch, backbone):
    config = dataclasses.replace(made.BACKBONES[backbone], depth=1, image_size=16)
    monkeypatch.setitem(backbones.CONFIGS, backbone, config)
    named = f"--config.backbone.name={backbone}", "--config.backbone.checkpoint=random"
    output = tmp_path / "plan.json"
    code, out, _ = command(
        *("--mode=plan", *tiny_flags, *named, "--on=cpu"), f"--output={output}"
    )
    assert code == 0 and "training step" in out and str(output) in out
    found = json.loads(output.read_text())
    whole = jax.tree.leaves(nnx.as_pure(nnx.state(backbones.abstract(config))))
    weights = found["stages"][0]["bytes"]["weights"]
    assert weights == 4 * sum(x.size for x in whole)
    for program in found["stages"][0]["programs"]:
        keys = "bytes flops traffic_bytes estimated_cycles seconds collectives fits"
        assert set(keys.split()) <= program.keys()
    for arguments, words in (
        (["--on=mars"], "'mars' is no TPU slice"),
        ([], "--mode plan needs --on"),
        (["--on=cpu", "--output=x.txt"], "must end in .json"),
    ):
        code, _, err = command("--mode=plan", *tiny_flags, *arguments)
        [line] = err.splitlines()
        assert code == 2 and words in line


def test_gpus_need_their_compiler(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        target.find("h200")
    with pytest.raises(UserError, match="plan-tpu"):
        target.find("v5e:2x4")


@pytest.mark.slow
def test_a_compiler_that_gives_up_says_how_much_it_wanted(tiny, monkeypatch):
    """As that for TPU, which knows how much memory its chips have."""

    def lower(self, *args, **kwargs):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
            "for HLO temporaries (19.33G) exceeds available HBM (15.75G)."
        )

    monkeypatch.setattr(jax.stages.Traced, "lower", lower)
    found = plan.plan(tiny, on_cpu(), sweep=False)
    assert not found["fits"] and found["proposal"]["change"] is None
    [stage] = found["stages"]
    assert stage["programs"][0]["bytes"]["all"] == int(19.33 * 2**30)
    assert found["seconds"] is None
