"""A learning rate that is searched for: what is tried, chosen, kept and obeyed."""

import json

import numpy as np
import pytest

import vpt_jax
from vpt_jax.errors import UserError
from vpt_jax.objectives import classification
from vpt_jax.progress import SweepTable
from vpt_jax.resolution import resolve
from vpt_jax.runs import search
from vpt_jax.sweeps import grids
from vpt_jax.training import inputs, loop

RATES = (4e30, 1.6, 0.4, 0.004)  # per 256 images, the batch of `tiny`


@pytest.fixture(scope="module")
def new_searched(new_tiny):
    """Makes configurations whose search has rounds of 1 and 3 epochs."""

    def new():
        config = new_tiny()
        config.optim.lr, config.epochs, config.seed = "auto", 17, 7
        return config

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(grids.LEARNING_RATES, "prompt", RATES)
        yield new


@pytest.fixture(scope="module")
def found(new_searched, tmp_path_factory):
    """A run that nobody disturbed: (workdir, result)."""
    workdir = tmp_path_factory.mktemp("searched") / "run"
    return workdir, vpt_jax.tune(new_searched(), workdir)


def left(workdir):
    """The bits of a run, and of its search, without times."""
    choice = json.loads((workdir / "search" / "choice.json").read_text())
    del choice["seconds"]
    files = "export/tuned.safetensors", "metrics.jsonl"
    return choice, [(workdir / name).read_bytes() for name in files]


def test_the_rates_are_tried_and_the_best_is_run(found, new_tiny, tmp_path):
    workdir, result = found
    tried = result["lr_search"]
    assert tried["rates"] == list(RATES) and tried["seconds"] > 0
    assert tried["val_loss"][0] is tried["val_top1"][0] is None  # not finite
    assert sorted(tried["epochs"]) == [1, 1, 3, 3]
    assert tried["chosen"] == result["lr"] and result["lr"] in RATES[1:]
    assert tried["epochs"][RATES.index(result["lr"])] == 3
    assert "lr_search" in json.loads((workdir / "result.json").read_text())
    assert not list((workdir / "search").rglob("checkpoints"))

    given = new_tiny()
    given.optim.lr, given.epochs, given.seed = result["lr"], 17, 7
    same = vpt_jax.tune(given, tmp_path)
    assert "lr_search" not in same and same["test_top1"] == result["test_top1"]
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert lines == (workdir / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    "scores, losses, images, taken",
    [
        # 52.8 % of 400 images, within 2.5 of it
        ((52.8, 50.8, 46.5), (50.8, 28.2, 2.7), 400, 1),
        ((52.8, 50.8, 46.5), (50.8, 28.2, 2.7), 40_000, 0),
        # of 100 classes: all guess
        ((2.0, 1.0, 1.0), (6.3, 5.9, 4.9), 100, 2),
        ((20.0, 1.0, 1.0), (6.3, 5.9, None), 100, 0),
        # an objective without a loss on held-out images
        ((20.0, 22.0), (None, None), 10, 1),
    ],
)
def test_the_lowest_loss_within_a_standard_error(scores, losses, images, taken):
    finalists = [
        {"val_top1": score, "val_loss": loss, "position": k, "status": "ok"}
        | {"lr": 0.1, "weight_decay": 0.0}
        for k, (score, loss) in enumerate(zip(scores, losses, strict=True))
    ]
    assert search._best(classification, finalists, images) == taken


def test_rounds_go_by_the_loss_where_there_is_one():
    def record(score, loss):
        return {"val_top1": score, "val_loss": loss}

    worst_first = [record(50.0, None), record(40.0, 9.0), record(20.0, 2.5)]
    ranks = [search._by_loss(classification, r) for r in worst_first]
    assert ranks == sorted(ranks)
    without = [record(20.0, None), record(30.0, None)]
    ranks = [search._by_loss(classification, r) for r in without]
    assert ranks == sorted(ranks)


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.slow
def test_a_killed_search_ends_as_an_undisturbed_one(
    found, new_searched, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    seen = []

    def crash(*_):
        seen.append(1)
        if len(seen) == 6:  # in the second round
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SweepTable, "update", crash)
        with pytest.raises(Killed):
            vpt_jax.tune(new_searched(), tmp_path)
    assert not (tmp_path / "search" / "choice.json").exists()
    vpt_jax.tune(new_searched(), tmp_path)
    assert left(tmp_path) == left(found[0])


def test_the_choice_is_obeyed(found, new_searched, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "train", None)
    with pytest.raises(TypeError):  # a run that dies before its search
        vpt_jax.tune(new_searched(), tmp_path)
    monkeypatch.undo()
    known = found[1]["lr_search"] | {"chosen": 0.25}
    (tmp_path / "search" / "choice.json").write_text(json.dumps(known))
    assert vpt_jax.tune(new_searched(), tmp_path)["lr"] == 0.25


@pytest.mark.slow
def test_streamed_images(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(grids.LEARNING_RATES, "prompt", (0.4, 0.004))
    tiny.optim.lr, tiny.cache.images_gb, tiny.epochs = "auto", 0.0, 1
    result = vpt_jax.tune(tiny, tmp_path)
    assert result["status"] == "ok" and len(set(result["lr_search"]["val_loss"])) == 2
    unit = json.loads((tmp_path / "search/units/rates/plan.json").read_text())
    assert unit["inputs"] == inputs.STREAMED


def test_no_rate_can_be_trained(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(grids.LEARNING_RATES, "prompt", (4e30, 2e30))
    tiny.optim.lr = "auto"
    with pytest.raises(UserError, match="not finite at any rate down to 2e.30"):
        vpt_jax.tune(tiny, tmp_path)


@pytest.mark.parametrize(("epochs", "method"), [(100, "vpt_deep"), (50, "full")])
def test_it_trains_on_fewer_images_than_the_run(tiny, epochs, method):
    tiny.method.name, tiny.method.length = method, None
    tiny.optim.lr, tiny.epochs, tiny.seeds = "auto", epochs, (7, 42)
    tried = search.unit(resolve(tiny))
    assert {trial.seed for trial in tried.trials} == {7}
    spent = sum(n * rates for n, rates in search.rounds(tried))
    assert 0.3 * epochs < 0.9 * spent < epochs
    splits = tried.experiment.data
    [train, val] = splits.training(), splits.validation()
    assert val is not None and not set(train.ids) & set(val.ids)
    every = resolve(tiny).data.training()
    assert {*train.ids, *val.ids} == set(every.ids) and len(val) == 100
    held = np.bincount(val.labels) / np.bincount(every.labels)
    np.testing.assert_allclose(held, 0.1, atol=0.01)
