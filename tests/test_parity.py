"""Golden cases of the public PyTorch code: logits, first gradients, three SGD steps.

`pytest tests/test_parity.py --parity-dir DIR` runs every case of DIR/index.json; by
default those of tests/golden. Agreement: logits and losses to 1e-4, gradients and final
values to 1e-4 of each tensor's largest entry, or 1e-6.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from public_names import to_ours

from vpt_jax import backbones, methods
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.checkpoints import original_vit
from vpt_jax.training import losses, optim
from vpt_jax.training.step import decays
from vpt_jax.types import count, flatten, path_name, unflatten

GOLDEN = pathlib.Path(__file__).parent / "golden"


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        folder = metafunc.config.getoption("parity_dir")
        folder = pathlib.Path(folder) if folder else GOLDEN
        cases = json.loads((folder / "index.json").read_text())
        metafunc.parametrize(
            "case",
            [case | {"folder": folder} for case in cases],
            ids=[case["name"] for case in cases],
        )


def method_of(case: dict) -> tuple[str, dict]:
    """This project's name and options for a transfer type of the public code."""
    options = dict(case["options"])
    if case["mlp_num"]:
        raise ValueError(f"{case['name']}: MLP heads have no counterpart yet")
    if case["transfer_type"] == "linear":
        name, ours = "linear", {}
    elif case["transfer_type"] == "end2end":
        name, ours = "full", {"dropout": 0.0}
    elif case["transfer_type"] == "prompt":
        name, ours = "prompt", {"dropout": 0.0}
        ours["length"] = options.pop("MODEL.PROMPT.NUM_TOKENS", 5)
        ours["deep"] = options.pop("MODEL.PROMPT.DEEP", False)
        ours["project"] = options.pop("MODEL.PROMPT.PROJECT", 0)
    else:
        raise ValueError(f"{case['name']}: unknown type {case['transfer_type']}")
    if options:
        raise ValueError(f"{case['name']}: options without a counterpart: {options}")
    return name, ours


def backbone_of(case: dict) -> nnx.Module:
    arch = case["arch"]
    assert arch["family"] == "vit", f"no family {arch['family']}"
    config = ViTConfig(
        arch["patch"],
        arch["hidden"],
        arch["layers"],
        arch["heads"],
        arch["mlp"],
        case["image_size"],
    )
    graphdef, state = nnx.split(backbones.abstract(config))
    shapes = nnx.as_pure(state)
    wanted = {path: leaf.shape for path, leaf in flatten(shapes).items()}
    file = case["folder"] / case["backbone"]
    arrays = original_vit.load(file, config, wanted, np.float32)
    return nnx.merge(graphdef, unflatten(shapes, arrays))


def section(file, name: str) -> dict:
    """The tensors of one section of a case, by this project's paths."""
    prefix = name + "/"
    tensors = {}
    for key in file.files:
        if key.startswith(prefix):
            tensors |= to_ours(key.removeprefix(prefix), file[key])
    return tensors


def assert_tensors(tree, wanted: dict) -> None:
    found = flatten(tree)
    assert found.keys() == wanted.keys()
    for path, value in wanted.items():
        atol = max(1e-4 * np.abs(value).max(), 1e-6)
        np.testing.assert_allclose(
            found[path], value, rtol=0, atol=atol, err_msg=path_name(path)
        )


@pytest.fixture(autouse=True)
def highest_precision():
    with jax.default_matmul_precision("highest"):
        yield


def test_case(case):
    name, options = method_of(case)
    config = methods.make_config(name, options)
    model = methods.build(
        backbone_of(case), case["num_classes"], name, config, nnx.Rngs(0)
    )
    graphdef, trainable, frozen, stats = methods.split(model, name, config)
    with np.load(case["folder"] / f"{case['name']}.npz") as file:
        initial, grads = section(file, "init"), section(file, "grad")
        final = section(file, "final")
        images, labels = file["images_nhwc"], file["labels"].astype(np.int32)
        logits_before, logits_after = file["logits_before"], file["logits_after"]
        wanted_losses = file["losses"]
    assert flatten(trainable).keys() == initial.keys()
    assert count(trainable) == case["trainable_params"]
    assert count(trainable) + count(frozen) == case["total_params"]
    trainable = unflatten(trainable, {k: jnp.asarray(v) for k, v in initial.items()})
    mask = jnp.ones(len(labels))

    def logits_of(trainable):
        return nnx.merge(graphdef, trainable, frozen, stats)(images)

    def loss_of(trainable):
        model = nnx.merge(graphdef, trainable, frozen, stats)
        logits = model(images, key=jax.random.key(0), train=True, mask=mask)
        return losses.cross_entropy(logits, labels, mask)

    np.testing.assert_allclose(logits_of(trainable), logits_before, rtol=0, atol=1e-4)
    make = optim.make_optimizer("sgd", case["momentum"], decays)
    optimizer = make(case["lr"], case["weight_decay"])
    state = optimizer.init(trainable)
    for step in range(case["steps"]):
        loss, gradient = jax.jit(jax.value_and_grad(loss_of))(trainable)
        if step == 0:
            assert_tensors(gradient, grads)
        np.testing.assert_allclose(loss, wanted_losses[step], rtol=0, atol=1e-4)
        updates, state = optimizer.update(gradient, state, trainable)
        trainable = optax.apply_updates(trainable, updates)
    assert_tensors(trainable, final)
    np.testing.assert_allclose(logits_of(trainable), logits_after, rtol=0, atol=1e-4)
