"""What a sweep tries, as data."""

import dataclasses

import pytest

from vpt_jax import methods
from vpt_jax.config import base
from vpt_jax.errors import UserError
from vpt_jax.sweeps import grids, plan
from vpt_jax.sweeps.selection import Selection


def lengths_of(unit):
    [choice] = unit.experiment.network.method
    return choice.config.length


def grid_of(method, backbone="vit_b16", group="natural"):
    name = grids.default(methods.choose(method, {}), backbone, group)
    return name, len(grids.learning_rates(name)) * len(grids.WEIGHT_DECAYS)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("vpt_deep",), ("prompt", 40)),
        (("vpt_deep", "vit_b16", "fgvc"), ("prompt_fgvc", 36)),
        (("prompt_pad", "resnet50"), ("prompt_resnet", 36)),
        (("linear",), ("linear", 40)),
        (("mlp-3",), ("linear", 40)),
        (("linear", "mae_b16"), ("linear_mae", 52)),
        (("full",), ("finetune", 16)),
        (("adapter-8",), ("finetune", 16)),
        (("bias", "resnet50"), ("finetune_resnet", 32)),
        (("bias", "resnet50", "fgvc"), ("finetune_resnet_fgvc", 16)),
    ],
)
def test_public_grids(arguments, expected):
    assert grid_of(*arguments) == expected


def test_every_method_has_a_grid():
    for name in methods.METHODS:
        assert grid_of(name)[1] >= 16


def test_a_grid_is_one_unit_with_learning_rates_scaled_by_the_batch(tiny):
    tiny.optim.lr = 0.7  # of --mode train; the grid has its own
    [unit] = plan.units(tiny)
    assert len(unit.trials) == 40 and unit.label == ""
    assert tiny.batch_size == 256
    assert unit.trials[0] == plan.GridTrial(50.0, 0.01, 42, 50.0)
    tiny.batch_size = 64
    [unit] = plan.units(tiny)
    assert unit.trials[0] == plan.GridTrial(12.5, 0.01, 42, 50.0)
    tiny.optim.lr = "auto"
    with pytest.raises(UserError, match="a sweep tries a grid of its own"):
        plan.units(tiny)
    assert {t.weight_decay for t in unit.trials} == {0.01, 0.001, 0.0001, 0.0}


def test_what_needs_another_program_is_another_unit(tiny):
    tiny.sweep.over = "length=1,3; dropout=0,0.1"
    units = plan.units(tiny)
    assert [unit.label for unit in units] == [
        *("length=1 dropout=0", "length=1 dropout=0.1"),
        *("length=3 dropout=0", "length=3 dropout=0.1"),
    ]
    assert [lengths_of(unit) for unit in units] == [1, 1, 3, 3]
    tiny.sweep.over = "paper"
    tiny.method.length = None
    lengths = [lengths_of(unit) for unit in plan.units(tiny)]
    assert lengths == [1, 5, 10, 50, 100, 200]


def test_the_public_adamw_without_decay_is_another_optimizer(tiny):
    tiny.method.name, tiny.method.length = "bias", None
    tiny.optim.name = "adamw_public"
    adam, sgd = plan.units(tiny)
    assert (len(adam.trials), len(sgd.trials)) == (12, 4)
    assert [unit.experiment.optimizer.name for unit in (adam, sgd)] == [
        "adamw_public",
        "sgd",
    ]
    assert {t.weight_decay for t in sgd.trials} == {0.0}


def test_seeds_of_the_grid(tiny):
    tiny.seeds, tiny.sweep.base_lrs, tiny.sweep.weight_decays = (1, 2), (1.0,), (0.0,)
    [unit] = plan.units(tiny)
    assert [t.seed for t in unit.trials] == [1, 2]


def test_suites_and_variants():
    config = base("all", "linear", "vit_nano")
    names = [job.name for job in plan.jobs(config)]
    assert len(names) == 19 and names[0] == "cifar100"
    config = base("digits", "vpt_deep", "vit_nano")
    assert [job.name for job in plan.jobs(config)] == [""]
    config.sweep.variants = (
        "five: method.length=5",
        "last = 2: method.layers=-2 method.keep=False",
        "add: method.name=prompt_add",
    )
    five, last, add = plan.jobs(config)
    assert [five.name, last.name, add.name] == ["five", "last-2", "add"]
    assert (last.variant, last.position) == ("last = 2", 1)
    assert five.config.method.length == 5
    assert (last.config.method.layers, last.config.method.keep) == (-2, False)
    assert add.config.method.name == "prompt_add"
    config.task = "natural"
    assert plan.jobs(config)[3].name == "caltech101/five"


def test_a_variant_that_only_names_a_method_is_that_method():
    config = base("digits", "vpt_deep", "vit_nano")
    config.sweep.variants = "linear: method.name=linear epochs=5", "x: method.length=1"
    linear, other = plan.jobs(config)
    assert (linear.name, linear.variant, other.variant) == ("linear", "", "x")
    assert (linear.config.method.name, linear.config.epochs) == ("linear", 5)
    config.sweep.ablation = "Methods"
    assert [job.variant for job in plan.jobs(config)] == ["linear", "x"]


@pytest.mark.parametrize(
    ("group", "trained_on"), [("natural", "trainval"), ("fgvc", "train")]
)
def test_the_final_runs(tiny, group, trained_on):
    """The chosen point with every seed; FGVC has no images to add to its training."""
    [unit] = plan.units(tiny)
    chosen = Selection("00", "", 2.5, 2.5, 0.01, 90.0, 1, 40, 0)
    data = unit.experiment.data
    data = dataclasses.replace(data, task=dataclasses.replace(data.task, group=group))
    experiment = dataclasses.replace(unit.experiment, data=data)
    unit = dataclasses.replace(unit, experiment=experiment)
    final = plan.final(unit, chosen, (1, 2))
    assert (final.optimizer.lr, final.optimizer.weight_decay) == (2.5, 0.01)
    assert (final.seeds, final.data.trained_on) == ((1, 2), trained_on)
    assert final.network == unit.experiment.network and final.epochs == tiny.epochs


def test_halving_trains_few_to_the_end():
    assert plan.rungs(100, 0, 40) == [(100, 40)]
    assert plan.rungs(100, 3, 40) == [(11, 40), (33, 14), (100, 5)]
    assert plan.rungs(100, 2, 2) == [(100, 2)]
    assert plan.rungs(6, 3, 40) == [(6, 40)]


@pytest.mark.parametrize(
    ("num_trials", "fitting", "devices", "size"),
    [
        *((40, 40, 1, 40), (40, 15, 1, 14), (5, 2, 1, 2), (1, 8, 1, 1)),
        *((40, 16, 8, 16), (40, 15, 8, 8), (12, 100, 8, 16), (5, 100, 8, 5)),
        (40, 3, 8, 3),
    ],
)
def test_cohorts_fill_the_devices(num_trials, fitting, devices, size):
    assert plan.cohort_size(num_trials, fitting, devices) == size
    found = plan.cohorts(list(range(num_trials)), size)
    assert sum(found, []) == list(range(num_trials))
    assert [len(cohort) for cohort in found[:-1]] == [size] * (len(found) - 1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("grid", "huge", "'huge' is unknown; known: finetune"),
        ("base_lrs", (1.0, -1.0), "sweep.base_lrs"),
        ("weight_decays", (0.1, 0.1), "none twice"),
        ("trials", 0, "sweep.trials 0 must be at least 1"),
        ("over", "length", "option=value"),
        ("over", "size=1,2", "method.size"),
        ("over", "length=long", "length='long'"),
        ("variants", ("five",), "label: key=value"),
        ("variants", ("a: method.length=5", "a: method.length=6"), "repeats"),
        ("variants", ("a: method.size=5",), "no key"),
    ],
)
def test_mistakes(tiny, key, value, message):
    setattr(tiny.sweep, key, value)
    with pytest.raises(UserError, match=message):
        for job in plan.jobs(tiny):
            plan.units(job.config)


@pytest.mark.parametrize("text", ["1", "2/2", "-1/2", "a/b", "1/"])
def test_bad_shards(text):
    with pytest.raises(UserError, match="i/n"):
        plan.shard(text)
