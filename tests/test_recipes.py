"""What every method is trained with unless told otherwise, each value with its source.

paper: tables 6 and 8 and appendix A of the paper; public: its PyTorch code; the other
sources are the methods' own papers and releases. Methods that the paper has not are
trained as those of it that they resemble.
"""

import pathlib
import runpy
from typing import NamedTuple

import pytest

from vpt_jax import methods
from vpt_jax.config import base
from vpt_jax.resolution import resolve
from vpt_jax.sweeps import grids, plan

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


class Row(NamedTuple):
    """With ViT-B/16 and P = 10. `batch` is the protocol's; a single run has 64."""

    optimizer: str
    base_lr: float
    weight_decay: float
    warmup_epochs: int
    batch_size: int
    dropout: float | None
    source: str


TABLE = {
    "prompt": Row("sgd", 1.0, 1e-3, 10, 128, 0.1, "paper; lr, decay: demo.ipynb"),
    "vpt_shallow": Row("sgd", 1.0, 1e-3, 10, 128, 0.0, "paper, dropout demo.ipynb too"),
    "prompt_add": Row("sgd", 1.0, 1e-3, 10, 128, 0.1, "paper, figure 5: as VPT-deep"),
    "prompt_pixel": Row("sgd", 1.0, 1e-3, 10, 128, None, "paper, figure 5"),
    "prompt_pad": Row("sgd", 1.0, 1e-3, 10, 128, None, "paper, figure 5"),
    "prompt_below": Row("sgd", 1.0, 1e-3, 10, 128, None, "paper, figure 5"),
    "gated": Row("sgd", 1.0, 1e-3, 10, 128, 0.1, "as VPT; dropout: release, run.sh"),
    "vfpt": Row("sgd", 1.0, 1e-3, 10, 128, 0.1, "as VPT, which it builds on"),
    "cls": Row(
        "sgd", 1.0, 1e-3, 10, 128, None, "as VPT, beside which figure 11 has it"
    ),
    "linear": Row("sgd", 1.0, 1e-4, 10, 2048, None, "paper"),
    "mlp": Row("sgd", 0.25, 1e-4, 10, 2048, 0.1, "paper; batch as linear; mlp.py:38"),
    "sidetune": Row("sgd", 0.1, 1e-4, 10, 2048, None, "paper; batch as linear"),
    "partial": Row("adamw", 1e-3, 1e-4, 10, 1280, None, "paper"),
    "bias": Row("adamw", 5e-3, 1e-4, 10, 128, None, "paper"),
    "adapter": Row("adamw", 5e-3, 1e-4, 10, 128, None, "paper"),
    "full": Row("adamw", 1e-3, 1e-4, 10, 128, None, "paper; public warms up for 5"),
    "lora": Row("adamw", 4e-3, 1e-4, 10, 128, None, "as adapter; 1e-3 at batch 64"),
    "ssf": Row("adamw", 5e-3, 1e-4, 10, 128, None, "as bias"),
    "adaptformer": Row("adamw", 4e-3, 1e-4, 10, 128, 0.1, "as lora; arXiv 2205.13535"),
    "layernorm": Row("adamw", 5e-3, 1e-4, 10, 128, None, "as bias"),
}


def swept(config):
    """The run of a one-point grid."""
    config.sweep.base_lrs, config.sweep.weight_decays = (1.0,), (0.0,)
    [unit] = plan.units(config)
    return unit.experiment


def test_every_method_has_a_row():
    assert TABLE.keys() == methods.METHODS.keys() | {"vpt_shallow"}


@pytest.mark.parametrize("method", TABLE)
def test_defaults(method):
    single = resolve(base("digits", method))
    protocol = swept(base("digits", method))
    for run, batch_size in ((single, 64), (protocol, TABLE[method].batch_size)):
        found = TABLE[method]._replace(
            optimizer=run.optimizer.name,
            warmup_epochs=run.optimizer.warmup_epochs,
            batch_size=run.batch_size,
            dropout=run.content["method"].get("dropout"),
        )
        assert found == TABLE[method]._replace(batch_size=batch_size)
    optim = single.optimizer
    assert (optim.base_lr, optim.weight_decay) == TABLE[method][1:3]
    assert TABLE[method].source


@pytest.mark.parametrize("method", TABLE)
def test_a_single_run_is_one_of_the_grid_s(method):
    row, choices = TABLE[method], methods.choose(method, {})
    rates = grids.learning_rates(grids.default(choices, "vit_b16", "natural"))
    assert min(rates) <= row.base_lr <= max(rates)
    if method not in ("lora", "adaptformer"):  # their own papers'
        assert row.base_lr in rates
    assert row.weight_decay in grids.WEIGHT_DECAYS


@pytest.mark.parametrize(
    ("method", "backbone", "length", "batch_size"),
    [
        *(("vpt_deep", "vit_b16", p, b) for p, b in ((99, 128), (100, 64), (200, 64))),
        *(("vpt_deep", "vit_l16", p, b) for p, b in ((50, 64), (100, 32))),
        *(("vpt_shallow", "vit_h14", p, b) for p, b in ((50, 28), (200, 14))),
        *(("vpt_deep", name, 50, 128) for name in ("mae_b16", "mocov3_b16")),
        *(("vpt_deep", "vit_ti16", 50, 128), ("vpt_deep", "swin_b", 50, 80)),
        *(("linear", "vit_l16", None, 2048), ("linear", "vit_h14", None, 1024)),
        *(("linear", "swin_b", None, 1024), ("partial-1", "vit_l16", None, 640)),
        *(("partial-1", "vit_h14", None, 240), ("full", "vit_h14", None, 28)),
        *(("bias", "clip_l14", None, 64), ("full", "resnet50", None, 384)),
        *(("prompt_pad", "resnet50", None, 256), ("bias", "convnext_b", None, 128)),
        *(("full", "dinov2_g14", None, 28), ("full", "siglip_so400m14", None, 64)),
        ("vpt_deep+bias", "vit_b16", 100, 64),
    ],
)
def test_batches_of_the_paper_s_table_8(method, backbone, length, batch_size):
    config = base("digits", method, backbone)
    config.method.length = length
    assert swept(config).batch_size == batch_size


def test_a_batch_that_is_given_is_kept():
    config = base("digits", "linear", "vit_nano")
    config.batch_size = 32
    assert swept(config).batch_size == 32
    assert swept(config).optimizer.lr == 32 / 256


def test_each_length_of_a_sweep_has_its_own_batch():
    config = base("digits", "vpt_deep", "vit_b16")
    config.sweep.base_lrs, config.sweep.weight_decays = (1.0,), (0.0,)
    config.sweep.over = "length=50,100"
    short, long = plan.units(config)
    assert [unit.experiment.batch_size for unit in (short, long)] == [128, 64]
    assert (short.trials[0].lr, long.trials[0].lr) == (0.5, 0.25)


def test_shallow_prompts_are_not_dropped_wherever_they_are_named():
    for name, options in (("vpt_shallow", {}), ("prompt", {"deep": False})):
        [choice] = methods.choose(name, options)
        assert choice.config.dropout == 0.0
    [choice] = methods.choose("vpt_shallow", {"dropout": 0.1})
    assert choice.config.dropout == 0.1
    # An option of two methods has one value, here the prompts'.
    both = methods.choose("mlp-2+vpt_shallow", {})
    assert [choice.config.dropout for choice in both] == [0.0, 0.0]


def test_the_task_s_prompt_lengths():
    lengths = {"vpt_deep": 10, "vpt_shallow": 100, "gated": 100}
    lengths |= {"bias+vpt_shallow": 100, "prompt_below": 10}
    for method, length in lengths.items():
        content = resolve(base("cifar100", method)).content
        assert content["method"]["length"] == length


def test_fine_grained_tasks_train_on_their_training_images():
    """As the public code, which keeps the validation images apart in its last runs."""
    config = runpy.run_path(str(CONFIGS / "fgvc.py"))["get_config"]("cub")
    assert resolve(config).data.trained_on == "train"
