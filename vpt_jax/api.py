"""The Python interface: `tune` a configuration, `load` what was tuned."""

import dataclasses
import functools
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int32, UInt8
from ml_collections import ConfigDict

from vpt_jax import checkpoints, data, export, methods, parallel
from vpt_jax import config as configs
from vpt_jax.checkpoints import zoo
from vpt_jax.data import preprocess
from vpt_jax.data.examples import Examples
from vpt_jax.data.source import Source, fingerprint
from vpt_jax.errors import UserError
from vpt_jax.progress import Bar, say
from vpt_jax.training import inputs, loop, losses, metrics, optim, step
from vpt_jax.training.state import Checkpoints
from vpt_jax.training.step import Setup, State
from vpt_jax.types import count
from vpt_jax.workdir import MetricsLog, Workdir, default_path, write_json


def tune(
    config: ConfigDict,
    workdir: str | pathlib.Path | None = None,
    pretrained: checkpoints.Pretrained | None = None,
) -> dict:
    """Tune a backbone on a task, or continue where an earlier call was stopped.

    Args:
        config: From `config.base` or a file of `configs/`.
        workdir: Where all is written; None: `runs/<config>-<hash>`.
        pretrained: The backbone of `config`, if it is in memory already.

    Returns:
        The content of result.json, with 'workdir' and 'paths' added.

    Raises:
        UserError: The configuration, data, checkpoint or workdir cannot be used.
    """
    config = configs.resolve(config)
    path = pathlib.Path(workdir) if workdir else default_path(config)
    task = data.get_task(config.task, config.data.dir)
    split = configs.SPLITS[config.data.split]
    examples = training_images(config, split)
    val = task.checked("val", config.data.dir) if split == "train" else None
    setup = make_setup(config, examples.labels, task.num_classes, pretrained)
    if config.export_backbone:
        export.check_backbone(setup)

    run = Workdir(path, config)
    if run.result is not None:
        say(f"{path} holds a finished run; delete it or use another --workdir to rerun")
        return run.result | _paths(path)
    seeds = config.seeds
    same = {"lr": config.optim.lr, "weight_decay": config.optim.weight_decay}
    trials = [{"seed": seed} | same for seed in seeds]
    mesh = parallel.make_mesh(len(seeds), config.batch_size)
    with Bar(setup.num_steps) as bar:
        outcome, lines = train_trials(
            config, setup, trials, examples, val, path, bar.update
        )

    # ---- the test images, once, for all trials together
    test = task.checked("test", config.data.dir, limit=config.data.test_examples)
    logits = step.make_logits(setup, mesh)
    frozen = step.place_frozen(setup, mesh)
    say(f"scoring {len(test):,} test images")
    trained = parallel.fetch(outcome.state)
    of_trials = loop.predict(setup, logits, outcome.state, frozen, test)
    scores = [metrics.score(x, test.labels) for x in of_trials]
    result = _result(config, task, setup, examples, val, test, outcome, scores, lines)
    if len(seeds) > 1:
        alive = of_trials[trained.alive]
        together = metrics.ensemble(alive, test.labels) if len(alive) else None
        result["test_top1_ensemble"] = together
    for trial, seed in enumerate(seeds):
        only = jax.tree.map(lambda x, n=trial: x[n], trained)
        folder = path / "export"
        folder = folder / f"seed_{seed}" if len(seeds) > 1 else folder
        manifest = {
            "format": 1,
            "config": configs.to_dict(config),
            "backbone": config.backbone.name,
            "checkpoint_sha256": setup.pretrained.sha256,
            "classes": list(task.class_names(config.data.dir)),
            "seed": seed,
            "metrics": scores[trial],
        }
        result["tuned_bytes"] = export.write(
            folder, setup, only.trainable, only.stats, manifest
        )
        if config.export_backbone:
            tuned = setup, only.trainable, only.stats
            parallel.first(functools.partial(export.write_backbone, folder, *tuned))
    from vpt_jax.reports import figures  # Matplotlib is slow to import

    title = f"{config.method.name} on {config.task}, {config.backbone.name}"
    curve = path / "figures" / "learning_curve.png"
    parallel.first(lambda: figures.learning_curve(lines, title, curve))
    _warn_of_collapse(lines, task.num_classes, config.optim.lr)
    run.finish(result)
    return result | _paths(path)


def training_images(config: ConfigDict, split: str) -> Source:
    """A training split of the task, or `data.train_percent` of it in its order."""
    task = data.get_task(config.task, config.data.dir)
    source, percent = task.checked(split, config.data.dir), config.data.train_percent
    if percent is None:
        return source
    # Drawn once for all: trials and methods are compared on the same images.
    order = np.random.default_rng(0).permutation(len(source))
    count = max(1, round(len(source) * percent / 100))
    return source.select(sorted(order[:count]))


def train_trials(
    config: ConfigDict,
    setup: Setup,
    trials: Sequence[dict],
    examples: Source,
    val: Source | None,
    path: pathlib.Path,
    on_chunk: Callable[[int, float, float, float], None],
    fill_to: int = 0,
) -> tuple[loop.Outcome, list[dict]]:
    """Train trials at once, or continue where an earlier call was stopped.

    Args:
        config: Resolved; `val_every` and `cache` are read.
        setup: What is trained.
        trials: 'lr', 'weight_decay' and 'seed' of each.
        examples, val: Training images, and those that are scored on the way.
        path: Gets metrics.jsonl, tensorboard/ and checkpoints/.
        on_chunk: See `loop.train`.
        fill_to: Repeat the last trial up to this number, unseen by the log, so that
            one compiled program serves chunks of several sizes.

    Returns:
        What training left, and the lines of metrics.jsonl.
    """
    filled = [*trials, *[trials[-1]] * (fill_to - len(trials))]
    hyper = optim.Hyper(
        jnp.asarray([trial["lr"] for trial in filled], jnp.result_type(float)),
        jnp.asarray([t["weight_decay"] for t in filled], jnp.result_type(float)),
        jnp.asarray([trial["seed"] for trial in filled], jnp.uint32),
    )
    keys = ("seed", "lr", "weight_decay")
    log = MetricsLog(path, [{key: trial[key] for key in keys} for trial in trials])

    def on_epoch(epoch: loop.Epoch) -> None:
        if epoch.trial < len(trials):
            log.add(epoch)

    outcome = loop.train(
        setup,
        parallel.make_mesh(len(filled), config.batch_size),
        hyper,
        examples,
        val,
        config.val_every,
        limits(config),
        Checkpoints(path / "checkpoints"),
        log.start,
        on_epoch,
        on_chunk,
    )
    log.close()
    return outcome, log.lines()


@dataclasses.dataclass(frozen=True)
class TunedModel:
    """A backbone with what was tuned on it, ready to classify images.

    Attributes:
        setup: The network's parts and preprocessing.
        state: The tuned tensors, T = 1.
        classes: Names of the C classes.
        manifest: Of the export.
    """

    setup: Setup
    state: State
    classes: tuple[str, ...]
    manifest: dict

    def predict(
        self, images: Sequence[UInt8[np.ndarray, "h w 3"]]
    ) -> Float[np.ndarray, "n C"]:
        """Class probabilities of RGB images of any sizes."""
        if not len(images):
            return np.zeros((0, len(self.classes)), np.float32)
        ids = [str(n) for n in range(len(images))]
        examples = Examples.from_images(list(images), [0] * len(images), ids)
        logits = self.logits(examples)
        return np.asarray(jax.nn.softmax(logits, axis=-1))

    def logits(self, examples: Source) -> Float[np.ndarray, "n C"]:
        """Logits of a whole split."""
        program, frozen = self._program
        return loop.predict(self.setup, program, self.state, frozen, examples)[0]

    @functools.cached_property
    def _program(self):
        """What computes the logits, and the frozen weights it takes."""
        mesh = parallel.make_mesh(1, inputs.BATCH)
        return step.make_logits(self.setup, mesh), step.place_frozen(self.setup, mesh)


def load(path: str | pathlib.Path, checkpoint: str | None = None) -> TunedModel:
    """A tuned model from a workdir or an export folder.

    Args:
        path: The folder. Of a run with several seeds, `export/seed_N`.
        checkpoint: Where the backbone is, if no longer where the run found it.

    Raises:
        UserError: No export there, or the backbone is not the one it was tuned on.
    """
    directory = pathlib.Path(path)
    if (directory / "export").is_dir():
        directory = directory / "export"
    several = sorted(directory.glob("seed_*/manifest.json"))
    if several:
        directory = several[0].parent
    manifest = export.read_manifest(directory)
    config = _from_dict(manifest["config"])
    if checkpoint is not None:
        config.backbone.checkpoint = checkpoint
    setup = make_setup(config, np.zeros(1, np.int32), len(manifest["classes"]))
    if setup.pretrained.sha256 != manifest["checkpoint_sha256"]:
        raise UserError(
            f"{directory} was tuned on a {manifest['backbone']} with sha256 "
            f"{manifest['checkpoint_sha256']}, but {setup.pretrained.source} has "
            f"{setup.pretrained.sha256}; give the right config.backbone.checkpoint"
        )
    trainable, stats = export.read_tensors(directory, setup)
    one = lambda tree: jax.tree.map(lambda x: jnp.asarray(x)[None], tree)  # noqa: E731
    state = State(one(trainable), one(stats), None, None, None, None)
    return TunedModel(setup, state, tuple(manifest["classes"]), manifest)


def load_backbone(config: ConfigDict) -> checkpoints.Pretrained:
    """The backbone of a resolved configuration, at the size that its method needs."""
    method = methods.choose(config.method.name, _method_options(config))
    return checkpoints.load(
        config.backbone.name,
        config.backbone.checkpoint,
        methods.image_size(method, config.image_size),
        dtype=jnp.dtype(config.precision),
        frozen_dtype=config.backbone.dtype,
        on_host=config.backbone.shard or jax.process_count() > 1,
    )


def make_setup(
    config: ConfigDict,
    labels: Int32[np.ndarray, " n"],
    num_classes: int,
    pretrained: checkpoints.Pretrained | None = None,
) -> Setup:
    """The fixed part of a run from a resolved configuration.

    Args:
        config: Resolved.
        labels: Of the training images.
        num_classes: C.
        pretrained: From `load_backbone`; None: loads it.
    """
    return Setup(
        pretrained=pretrained or load_backbone(config),
        method=methods.choose(config.method.name, _method_options(config)),
        num_classes=num_classes,
        num_examples=len(labels),
        image_size=config.image_size,
        batch_size=config.batch_size,
        epochs=config.epochs,
        warmup_epochs=config.optim.warmup_epochs,
        schedule=config.optim.schedule,
        optimizer=optim.make_optimizer(
            config.optim.name, config.optim.momentum, step.DECAYS[config.optim.name]
        ),
        preset=_preset(config),
        class_weights=losses.class_weights(
            config.data.class_weights, labels, num_classes
        ),
        scan=config.backbone.scan,
        remat=config.backbone.remat,
        shard=config.backbone.shard,
    )


def evaluate(model: TunedModel, workdir: pathlib.Path, overrides: dict) -> dict:
    """Score a tuned model on the test images of its task.

    Args:
        model: From `load`.
        workdir: Gets eval.json.
        overrides: 'dir' and 'test_examples', where they differ from the run's.
    """
    config = model.manifest["config"]
    chosen = config["data"] | {k: v for k, v in overrides.items() if v is not None}
    task = data.get_task(config["task"], chosen["dir"])
    test = task.checked("test", chosen["dir"], limit=chosen["test_examples"])
    started = time.perf_counter()
    scores = metrics.score(model.logits(test), test.labels)
    result = {
        "task": config["task"],
        **{f"test_{name}": value for name, value in scores.items()},
        "n_test": len(test),
        "seconds": time.perf_counter() - started,
    }
    write_json(workdir / "eval.json", result)
    return result


def _result(config, task, setup, examples, val, test, outcome, scores, lines) -> dict:
    """Every field of result.json but the bytes of the export."""
    _, trainable, frozen, _ = setup.parts
    trained = count(trainable)
    alive = parallel.fetch(outcome.state.alive)
    good = [s for s, ok in zip(scores, alive, strict=True) if ok]
    last_val = [x["val_top1"] for x in lines if x["epoch"] == config.epochs]
    mean = lambda key: _mean([s[key] for s in good])  # noqa: E731
    failed = [seed for seed, ok in zip(config.seeds, alive, strict=True) if not ok]
    several = len(config.seeds) > 1
    return {
        "task": config.task,
        "group": task.group,
        "method": config.method.name,
        "method_options": _method_options(config),
        "backbone": config.backbone.name,
        "checkpoint_sha256": setup.pretrained.sha256,
        "num_classes": setup.num_classes,
        "image_size": config.image_size,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "seed": list(config.seeds) if several else config.seeds[0],
        "optimizer": config.optim.name,
        "lr": config.optim.lr,
        "weight_decay": config.optim.weight_decay,
        "precision": config.precision,
        "normalization": config.data.preset,
        "test_top1": mean("top1"),
        "test_top1_std": float(np.std([s["top1"] for s in good]))
        if several and good
        else None,
        "test_top1_per_seed": [
            s["top1"] if ok else None for s, ok in zip(scores, alive, strict=True)
        ],
        "test_top1_ensemble": None,
        "test_top5": mean("top5"),
        "test_auc": mean("auc"),
        "test_mean_per_class": mean("mean_per_class"),
        "val_top1": _mean(last_val),
        "trainable_params": trained,
        "head_params": count(trainable["head"]),
        "backbone_params": count(setup.pretrained.params),
        "tuned_percent": 100 * trained / (trained + count(frozen)),
        "tuned_bytes": None,
        "train_seconds": outcome.train_seconds,
        "compile_seconds": outcome.compile_seconds,
        "images_per_second": outcome.images_per_second,
        "peak_memory_bytes": _peak_memory(),
        "n_train": len(examples),
        "n_val": 0 if val is None else len(val),
        "n_test": len(test),
        "data_fingerprint": fingerprint(examples),
        "status": "ok"
        if not failed
        else f"failed: the loss was not finite for seed {', '.join(map(str, failed))} "
        f"at lr {config.optim.lr:g}",
    }


def _method_options(config: ConfigDict) -> dict:
    return {k: v for k, v in config.method.items() if k != "name"}


def _preset(config: ConfigDict) -> preprocess.Preset:
    if config.data.preset != preprocess.BACKBONE:
        return preprocess.get_preset(config.data.preset)
    entry = zoo.lookup(config.backbone.name)
    return preprocess.of_pretraining(
        entry.mean, entry.std, entry.resize, entry.image_size
    )


def limits(config: ConfigDict) -> inputs.Limits:
    """Memory for cached outputs, as configured."""
    sizes = [config.cache[place] for place in configs.CACHES]
    return inputs.Limits(*(None if gb is None else 1e9 * gb for gb in sizes))


def _mean(values: list) -> float | None:
    values = [v for v in values if v is not None]
    return float(np.mean(values)) if values else None


def _peak_memory() -> int:
    """Of the first device; on a CPU of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _warn_of_collapse(lines: list[dict], num_classes: int, lr: float) -> None:
    """Tell the user when training ended where guessing would have."""
    last = [x for x in lines if x["epoch"] == lines[-1]["epoch"]]
    for line in last:
        if line["train_top1"] < 150 / num_classes:
            say(
                f"warning: seed {line['seed']} collapsed: {line['train_top1']:.1f} % "
                f"on its training images is what guessing among {num_classes} classes "
                f"gives; try a lower learning rate than optim.lr={lr:g}"
            )


def _paths(path: pathlib.Path) -> dict:
    return {"workdir": str(path)}


def _from_dict(content: dict) -> ConfigDict:
    """A resolved configuration again, also where the task's images are not."""
    config = configs.base(content["task"])
    with config.unlocked():
        config.method = ConfigDict()
        for key, value in content.items():
            if isinstance(value, dict):
                for name, entry in value.items():
                    config[key][name] = entry
            else:
                config[key] = tuple(value) if isinstance(value, list) else value
    return config
