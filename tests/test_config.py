"""Completing a configuration, and refusing one that does not fit together."""

import pathlib

import pytest

from vpt_jax.config import arguments, base, restore
from vpt_jax.errors import UserError
from vpt_jax.methods.prompt import PromptConfig
from vpt_jax.resolution import resolve


def resolved(method="vpt_deep", **changes):
    config = base("digits", method, "vit_nano")
    config.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in changes.items()}
    )
    return resolve(config)


def content(*arguments, **changes):
    return resolved(*arguments, **changes).content


def refused(message, method="vpt_deep", **changes):
    with pytest.raises(UserError, match=message) as error:
        resolved(method, **changes)
    assert "\n" not in str(error.value)


WARM = {"epochs": 1, "optim__warmup_epochs": 1}


@pytest.mark.parametrize(
    ("alias", "deep", "dropout"),
    [
        *(("vpt_deep", True, 0.1), ("vpt-deep", True, 0.1), ("prompt", True, 0.1)),
        *(("vpt_shallow", False, 0.0), ("vpt-shallow", False, 0.0)),
    ],
)
def test_names_of_prompt_tuning(alias, deep, dropout):
    method = content(alias)["method"]
    wanted = {"name": "prompt", "length": 10, "deep": deep, "dropout": dropout}
    assert wanted.items() <= method.items()
    assert set(method) == {"name", *vars(PromptConfig())}


def test_methods_joined_by_plus():
    config = base("digits", "vpt_shallow+mlp-2", "vit_nano")
    config.method.dropout = 0.0
    method = resolve(config).content["method"]
    assert method["name"] == "prompt+mlp" and method["mlp_layers"] == 2
    assert method["deep"] is False and method["dropout"] == 0.0
    again = base("digits", method["name"], "vit_nano")
    for key, value in method.items():
        again.method[key] = value
    assert resolve(again).content["method"] == method


def test_a_frame_must_fit_the_patches():
    config = base("cifar100", "prompt_pad", "vit_b16")
    config.method.padding = 5
    with pytest.raises(UserError, match="234 px, which is not a multiple of the 16"):
        resolve(config)


def test_an_option_beats_the_alias():
    [choice] = resolved("vpt_shallow", method__deep=True).network.method
    assert choice.config.deep is True


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("vpt_deep", ("sgd", 1.0, 1e-3, 10)),
        ("linear", ("sgd", 1.0, 1e-4, 10)),
        ("full", ("adamw", 1e-3, 1e-4, 10)),
    ],
)
def test_defaults_follow_the_method(method, expected):
    """Also of a method that an override names after the file chose another."""
    for config in (resolved(method), resolved("linear", method__name=method)):
        optim = config.optimizer
        found = optim.name, optim.base_lr, optim.weight_decay, optim.warmup_epochs
        assert found == expected
        assert config.batch_size == 64
        assert optim.lr == pytest.approx(optim.base_lr * 64 / 256, rel=1e-12)


def test_the_backbone_decides_image_size_and_preset():
    for config, size, preset in (
        (resolved(), 32, "inception"),
        (resolve(base("cifar100")), 224, "vpt"),
    ):
        assert (config.network.image_size, config.network.preset.name) == (size, preset)
        assert config.content["data"]["preset"] == preset
        backbone = config.network.backbone
        assert (backbone.precision, backbone.dtype) == ("float32", "float32")


def test_the_target_decides_the_precision():
    config = base("digits", "vpt_deep", "vit_nano")
    for platform, precision in (("cpu", "float32"), ("tpu", "bfloat16")):
        backbone = resolve(config, platform).network.backbone
        assert (backbone.precision, backbone.dtype) == (precision, precision)


def test_base_is_not_changed_and_resolving_again_changes_nothing():
    config = base("digits", "vpt_deep", "vit_nano")
    once = resolve(config)
    assert config.batch_size is None and config.method.name == "vpt_deep"
    again = base("digits", "vpt_deep", "vit_nano")
    again.batch_size = once.batch_size
    assert resolve(again).content == once.content


def test_one_configuration_leaves_no_trace_in_the_next():
    before = content()
    resolved(method__length=3, method__dropout=0.5, seeds=(1, 2), batch_size=8)
    assert content() == before


# ---- learning rate and schedule


def test_base_lr_is_per_256_images():
    optim = resolved(optim__base_lr=2.0, batch_size=128).optimizer
    assert (optim.lr, optim.base_lr) == (1.0, 2.0)
    optim = resolved(optim__lr=2.0, batch_size=128).optimizer
    assert (optim.lr, optim.base_lr) == (2.0, 4.0)


def test_lr_and_base_lr_exclude_each_other():
    refused("optim.lr=0.5 and optim.base_lr=1.0", optim__lr=0.5, optim__base_lr=1.0)
    refused("optim.lr=0.5 and optim.base_lr=0.0", optim__lr=0.5, optim__base_lr=0.0)


def test_a_rate_that_is_to_be_found():
    found = resolved(optim__lr="auto", batch_size=128)
    assert found.search is not None and 0.05 in found.search.base_lrs
    assert found.content["optim"]["lr"] == "auto"
    assert found.content["optim"]["base_lr"] is None
    again = resolve(restore(found.content))
    assert again == found and found.with_lr(0.5).optimizer.base_lr == 1.0
    assert resolved(optim__lr=0.1).search is None
    refused("optim.lr=auto and optim.base_lr=1.0", optim__lr="auto", optim__base_lr=1.0)


@pytest.mark.parametrize("lr", [2, 2.0])
def test_a_rate_may_be_a_whole_number(lr):
    optim = resolved(optim__lr=lr)
    assert optim.content["optim"]["lr"] == 2.0 == optim.optimizer.lr
    assert isinstance(optim.content["optim"]["lr"], float)


def test_warmup_is_a_share_of_the_epochs():
    assert resolved(epochs=50).optimizer.warmup_epochs == 5
    assert resolved(epochs=5).optimizer.warmup_epochs == 0
    assert resolved(epochs=5, optim__warmup_epochs=4).optimizer.warmup_epochs == 4
    refused("warmup_epochs 5 must be less", epochs=5, optim__warmup_epochs=5)


def test_adamw_public_without_decay_is_sgd():
    given = {"optim__name": "adamw_public", "optim__weight_decay": 0.0}
    assert resolved(**given).optimizer.name == "sgd"
    assert resolved(optim__name="adamw_public").optimizer.name == "adamw_public"


# ---- seeds


def test_seeds():
    assert resolved().seeds == (42,)
    assert resolved(seed=3).seeds == (3,)
    assert resolved(seeds=(5, 1)).seeds == (5, 1)
    refused("repeats a seed", seeds=(1, 2, 1))


# ---- what is refused


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("unknown task 'mnist': .*digits", {"task": "mnist"}),
        ("unknown method 'magic'; .*vpt_deep.*linear", {"method__name": "magic"}),
        ("unknown backbone 'vgg'; .*vit_b16", {"backbone__name": "vgg"}),
        ("image_size 9 .*8 px", {"image_size": 9}),
        ("image_size 0 ", {"image_size": 0}),
        ("data.split 'x' .*train800", {"data__split": "x"}),
        ("preset 'x'.*vpt, inception", {"data__preset": "x"}),
        ("class_weights 'x' .*none, inv, inv_sqrt", {"data__class_weights": "x"}),
        ("cache.images_gb -1.0 must", {"cache__images_gb": -1.0}),
        ("precision 'float8' .*bfloat16", {"precision": "float8"}),
        ("backbone.dtype 'x' .*float32", {"backbone__dtype": "x"}),
        ("optim.name 'lion' .*sgd, adamw", {"optim__name": "lion"}),
        ("optim.schedule 'x' .*epoch, step", {"optim__schedule": "x"}),
        ("epochs 0 must be .* at least 1", {"epochs": 0}),
        ("batch_size 0 must be .* at least 1", {"batch_size": 0}),
        ("seed -1 must be a whole number", {"seed": -1}),
        ("seed 5000000000 must be", {"seeds": (1, 5_000_000_000)}),
        ("seed 'a' must be", {"seeds": ("a",)}),
        ("optim.lr inf must be a finite", {"optim__lr": float("inf")}),
        ("optim.momentum 2.0 must be less", {"optim__momentum": 2.0}),
        ("warmup_epochs 1 must be less than epochs 1", WARM),
        ("optim.lr -1.0 must", {"optim__lr": -1.0}),
        ("optim.lr nan must", {"optim__lr": float("nan")}),
        ("optim.lr 'atuo' must be a number, or auto", {"optim__lr": "atuo"}),
        ("optim.lr True must be a number, or auto", {"optim__lr": True}),
        ("head_start 'x' .*random, fitted", {"optim__head_start": "x"}),
        ("method.length 0 must be at least 1", {"method__length": 0}),
        (r"method.dropout 1.0 must be in \[0, 1\)", {"method__dropout": 1.0}),
    ],
)
def test_a_value_that_cannot_be(message, changes):
    refused(message, **changes)


def test_batch_statistics_are_not_computed_twice():
    for key in ("remat", "shard"):
        changes = {"backbone__name": "resnet50", f"backbone__{key}": True}
        refused(f"backbone.{key}=True is not possible .* resnet50", "linear", **changes)


def test_options_of_another_method():
    refused("'linear' has no option 'length'.*none", "linear", method__length=5)
    refused("'full' has no option 'deep'.*backbone_dropout", "full", method__deep=True)


def test_arguments_of_a_config_file():
    assert arguments("cifar100,linear", "x/vtab.py") == ["cifar100", "linear"]
    four = arguments("a,b,c,tuned", "x/vtab.py")
    assert four == ["a", "b", "c", str(pathlib.Path("x/tuned.csv"))]
    usage = r"x/vtab.py:NAME\[,METHOD\[,BACKBONE\[,tuned\]\]\]"
    for wrong in ("", "a,b,c,d", "a,b,c,tuned,e", "cifar100,,vit_b16"):
        with pytest.raises(UserError, match=f"not of the form {usage}"):
            arguments(wrong, "x/vtab.py", "NAME")
