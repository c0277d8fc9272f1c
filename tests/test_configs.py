"""Every file of configs/ builds, resolves and, shrunk, takes a step."""

import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scenes_folder

from vpt_jax import parallel, tuned
from vpt_jax.config import base
from vpt_jax.data.examples import Examples
from vpt_jax.errors import UserError
from vpt_jax.resolution import resolve
from vpt_jax.sweeps import plan
from vpt_jax.training import inputs, loop
from vpt_jax.training.optim import Hyper
from vpt_jax.training.state import Checkpoints

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
ARGUMENTS = {
    "ablations": [("length",)],
    "fgvc": [("cub",), ("stanford_cars,linear",)],
    "folder": [("{folder}",), ("{folder},linear",)],
    "pretrain_embedded": [(), ("2",)],
    "results": [("digits,vit_nano",)],
    "quickstart": [(), ("linear",)],
    "segmentation": [("{scenes},full",)],
    "tfds": [("food101",), ("eurosat/rgb:2.0.0,linear",)],
    "vtab": [("cifar100",), ("cifar100,linear",), ("cifar100,vpt-shallow,vit_s16",)],
}


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (path.stem, argument)
        for path in sorted(CONFIGS.glob("*.py"))
        for argument in ARGUMENTS.get(path.stem, [()])
    ],
)
def test_a_config_takes_a_step(name, argument, checkpoint, new_tiny, tmp_path):
    for part in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / "images" / part / label
            folder.mkdir(parents=True)
            for n in range(2):
                (folder / f"{n}.png").touch()
    places = {"folder": tmp_path / "images", "scenes": tmp_path / "scenes"}
    scenes_folder.write(places["scenes"])
    argument = [word.format(**places) for word in argument]
    config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](*argument)
    full = resolve(config)
    assert full.optimizer.lr > 0

    config.backbone.name, config.backbone.checkpoint = "vit_test", str(checkpoint)
    config.epochs, config.batch_size, config.optim.warmup_epochs = 1, 2, 0
    config.head = "linear"  # of every kind of task: others take long to compile
    run = resolve(config)
    channels = 4 if run.network.objective.DENSE else 3
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, channels), np.uint8)
    images[..., 3:] %= 2  # classes
    examples = Examples.from_images(list(images), [0, 1], ["a", "b"])
    setup = run.make_setup(examples.labels)
    [choice] = setup.network.method
    assert choice.name == full.network.method_name and setup.num_steps == 1

    lr, decay = run.optimizer.lr, run.optimizer.weight_decay
    hyper = Hyper(jnp.array([lr]), jnp.array([decay]), jnp.array([0], jnp.uint32))
    mesh = parallel.make_mesh(1, setup.batch_size)
    place = inputs.decide(setup, run.limits, examples)
    losses = []
    outcome = loop.train(
        *(
            setup,
            mesh,
            hyper,
            examples,
            None,
            0,
            place,
            Checkpoints(tmp_path, lambda: None),
        ),
        lambda done: None,
        lambda epoch: losses.append(epoch.train_loss),
        lambda *progress: None,
    )
    [loss] = losses
    assert 0 < loss < 100 and outcome.state.alive.tolist() == [True]
    leaves = jax.tree.leaves(outcome.state.trainable)
    assert leaves and all(np.isfinite(leaf).all() for leaf in leaves)


def test_the_methods_of_a_page_of_results():
    """Each is a sweep of its own that resolves; most have six points."""
    module = runpy.run_path(str(CONFIGS / "results.py"))
    config = module["get_config"]("folder:photos")
    assert config.task == f"folder:{pathlib.Path('photos').absolute()}"
    config = module["get_config"]("cifar100")
    assert config.backbone.name == "deit_ti16" and config.image_size == 112
    found = {job.name: job for job in plan.jobs(config)}
    assert len(found) == 10 and not any(job.variant for job in found.values())
    sizes = {}
    public = {0.005, 0.001, 0.0005, 0.0001}  # of full fine-tuning
    assert public < set(found["full"].config.sweep.base_lrs)
    for name, job in found.items():
        [unit] = plan.units(job.config)
        epochs, halving = unit.experiment.epochs, job.config.sweep.halving
        sizes[name] = plan.rungs(epochs, halving, len(unit.trials))
    assert sizes["linear"] == [(100, 40)] and sizes["partial-1"] == [(100, 16)]
    assert {str(sizes[m]) for m in found if len(sizes[m]) > 1} == {"[(10, 6), (30, 2)]"}
    with pytest.raises(UserError, match="TASK"):
        module["get_config"]("")


def test_every_row_of_tuned_settings_makes_a_run():
    """Also where options of the method were added or renamed."""
    file = CONFIGS / "tuned.csv"
    rows = tuned.read(file)
    assert rows and file.read_text() == tuned.text(rows)
    for row in rows:
        config = base(row.task, row.method, row.backbone)
        tuned.apply(config, file)
        config.image_size = row.image_size
        config.task = "digits"  # a folder is not here
        run = resolve(config)
        assert (run.optimizer.base_lr, run.optimizer.name) == (
            row.base_lr,
            row.optimizer,
        )
        assert "/" not in row.task.replace("tfds:", "")


def test_every_ablation_is_a_suite_of_sweeps():
    """Each variant resolves, and differs from the others by more than its label."""
    module = runpy.run_path(str(CONFIGS / "ablations.py"))
    for name in module["ABLATIONS"]:
        config = module["get_config"](f"{name},digits")
        found = plan.jobs(config)
        assert len(found) >= 4 and config.sweep.ablation
        resolved = [resolve(job.config).content for job in found]
        texts = [json.dumps(one, sort_keys=True) for one in resolved]
        assert len(set(texts)) == len(found), name
    assert resolved[0]["backbone"]["name"] == "vit_b16"
    with pytest.raises(UserError, match="names: location, length"):
        module["get_config"]("width")
