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
from building import build_model
from flax import nnx
from public_names import choose, config_of, placed, to_ours

from vpt_jax import backbones, checkpoints, methods
from vpt_jax.model import FinalBias
from vpt_jax.objectives import classification
from vpt_jax.training import optim
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


def backbone_of(case: dict, image_size: int) -> nnx.Module:
    config = config_of(case["arch"], image_size)
    assert config.problem(image_size) is None
    graphdef, state = nnx.split(backbones.abstract(config))
    shapes = nnx.as_pure(state)
    file = case["folder"] / case["backbone"]
    arrays = checkpoints.load_arrays(file, config, shapes, np.float32)
    return nnx.merge(
        graphdef, unflatten(shapes, {k: jnp.asarray(v) for k, v in arrays.items()})
    )


def section(file, arch: dict, name: str, left_out=()) -> dict:
    """The tensors of one section of a case, by this project's paths."""
    prefix = name + "/"
    tensors = {}
    for key in file.files:
        public = key.removeprefix(prefix)
        if key.startswith(prefix) and public not in left_out:
            tensors |= to_ours(arch["family"], public, file[key])
    stages = arch.get("depths") or arch["layers"]
    return placed(tensors, stages if isinstance(stages, list) else [stages])


def unused(file) -> dict[str, np.ndarray]:
    """Prompts that the public code allocates and counts, but never uses."""
    return {
        key.removeprefix("grad/"): file["init/" + key.removeprefix("grad/")]
        for key in file.files
        if key.startswith("grad/") and "prompt" in key and not file[key].any()
    }


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
    chosen = methods.choose(*choose(case))
    size = methods.image_size(chosen, case["image_size"])
    backbone = backbone_of(case, size)
    model = build_model(backbone, case["num_classes"], chosen, seed=0)
    graphdef, trainable, frozen, stats = methods.split(model, chosen)
    with np.load(case["folder"] / f"{case['name']}.npz") as file:
        dead = unused(file)
        for name, value in dead.items():
            np.testing.assert_array_equal(value, file[f"final/{name}"])
        initial, grads, final = (
            section(file, case["arch"], name, dead)
            for name in ("init", "grad", "final")
        )
        buffers = section(file, case["arch"], "init_buffer")
        images = jnp.asarray(file["images_nhwc"])
        labels = jnp.asarray(file["labels"].astype(np.int32))
        logits_before, logits_after = file["logits_before"], file["logits_after"]
        wanted_losses = file["losses"]
    extra = sum(x.size for x in dead.values())
    assert flatten(trainable).keys() == initial.keys()
    # Statistics of a tuned part of the backbone are those of its file.
    buffers = {k: v for k, v in flatten(stats).items() if k[0] == "backbone"} | buffers
    assert flatten(stats).keys() == buffers.keys()
    assert count(trainable) + extra == case["trainable_params"]
    params = count(nnx.as_pure(nnx.state(model, nnx.Not(nnx.BatchStat))))
    assert params + extra == case["total_params"]
    trainable = unflatten(trainable, {k: jnp.asarray(v) for k, v in initial.items()})
    stats = unflatten(stats, {k: jnp.asarray(v) for k, v in buffers.items()})
    mask = jnp.ones(len(labels))

    @jax.jit
    def logits_of(trainable, stats):
        return nnx.merge(graphdef, trainable, frozen, stats)(images)

    def loss_of(trainable, stats):
        model = nnx.merge(graphdef, trainable, frozen, stats)
        logits = model(images, key=jax.random.key(0), train=True, mask=mask)
        total, size = classification.loss(logits, labels, mask)
        return total / size, methods.split(model, chosen)[3]

    found = logits_of(trainable, stats)
    np.testing.assert_allclose(found, logits_before, rtol=0, atol=1e-4)
    final_biases = flatten(nnx.as_pure(nnx.state(model, FinalBias)))
    make = optim.make_optimizer("sgd", case["momentum"], final_biases)
    optimizer = make(case["lr"], case["weight_decay"])
    state = optimizer.init(trainable)
    gradient_of = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    for step in range(case["steps"]):
        (loss, stats), gradient = gradient_of(trainable, stats)
        if step == 0:
            assert_tensors(gradient, grads)
        np.testing.assert_allclose(loss, wanted_losses[step], rtol=0, atol=1e-4)
        updates, state = optimizer.update(gradient, state, trainable)
        trainable = optax.apply_updates(trainable, updates)
    assert_tensors(trainable, final)
    found = logits_of(trainable, stats)
    np.testing.assert_allclose(found, logits_after, rtol=0, atol=1e-4)
