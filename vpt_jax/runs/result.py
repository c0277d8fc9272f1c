"""What result.json says of a run."""

import resource
import sys

import jax
import numpy as np

from vpt_jax.data.source import Source, fingerprint
from vpt_jax.experiment import Experiment
from vpt_jax.training.loop import Outcome
from vpt_jax.training.setup import Setup
from vpt_jax.types import count


def of_run(
    experiment: Experiment,
    setup: Setup,
    outcome: Outcome,
    sources: tuple[Source, Source | None, Source],
    alive: np.ndarray,
    validation: list[float | None],
    scores: list[dict],
    ensemble: float | None,
    tuned_bytes: int,
) -> dict:
    """Every field of result.json.

    Args:
        experiment, setup, outcome: What was trained, and what it cost.
        sources: Training, validation and test images.
        alive: (T,), which trials did not diverge.
        validation: Of each trial, after the last epoch.
        scores: Of each trial on the test images.
        ensemble: Of all trials together.
        tuned_bytes: Of one export.
    """
    metric = setup.network.objective.METRIC
    return {
        **described(experiment, setup),
        **_scores(metric, scores, alive, validation, ensemble),
        **_sizes(setup, tuned_bytes),
        "train_seconds": outcome.train_seconds,
        "compile_seconds": outcome.compile_seconds,
        "images_per_second": outcome.images_per_second,
        "peak_memory_bytes": peak_memory(),
        **{
            f"n_{name}": 0 if source is None else len(source)
            for name, source in zip(("train", "val", "test"), sources, strict=True)
        },
        "data_fingerprint": fingerprint(sources[0]),
        "status": _status(experiment, alive),
    }


def described(experiment: Experiment, setup: Setup) -> dict:
    """What was run."""
    content, optimizer = experiment.content, experiment.optimizer
    seeds = list(experiment.seeds)
    return {
        "task": content["task"],
        "group": experiment.data.task.group,
        "method": experiment.network.method_name,
        "method_options": {k: v for k, v in content["method"].items() if k != "name"},
        "backbone": experiment.network.backbone.name,
        "checkpoint_sha256": setup.network.pretrained.sha256,
        "num_classes": setup.network.num_classes,
        "image_size": experiment.network.image_size,
        "epochs": experiment.epochs,
        "batch_size": experiment.batch_size,
        "seed": seeds if len(seeds) > 1 else seeds[0],
        "optimizer": optimizer.name,
        "lr": optimizer.lr,
        "weight_decay": optimizer.weight_decay,
        "precision": experiment.network.backbone.precision,
        "normalization": content["data"]["preset"],
        "metric": setup.network.objective.METRIC,
        "higher_is_better": setup.network.objective.HIGHER_IS_BETTER,
    }


def _scores(metric, scores, alive, validation, ensemble) -> dict:
    """Means over the seeds that did not diverge, the primary score first."""
    good = [s for s, ok in zip(scores, alive, strict=True) if ok]
    primary = [s[metric] for s in good]
    several = len(scores) > 1
    others = [name for name in scores[0] if name != metric]
    return {
        f"test_{metric}": _mean(primary),
        f"test_{metric}_std": float(np.std(primary)) if several and good else None,
        f"test_{metric}_per_seed": [
            s[metric] if ok else None for s, ok in zip(scores, alive, strict=True)
        ],
        f"test_{metric}_ensemble": ensemble,
        **{f"test_{name}": _means([s[name] for s in good]) for name in others},
        f"val_{metric}": _mean(validation),
    }


def _sizes(setup: Setup, tuned_bytes: int) -> dict:
    _, trainable, frozen, _ = setup.network.parts
    trained = count(trainable)
    return {
        "trainable_params": trained,
        "head_params": count(trainable["head"]),
        "backbone_params": count(setup.network.pretrained.params),
        "tuned_percent": 100 * trained / (trained + count(frozen)),
        "tuned_bytes": tuned_bytes,
    }


def _status(experiment: Experiment, alive: np.ndarray) -> str:
    pairs = zip(experiment.seeds, alive, strict=True)
    failed = ", ".join(str(seed) for seed, ok in pairs if not ok)
    if not failed:
        return "ok"
    lr = experiment.optimizer.lr
    return f"failed: the loss was not finite for seed {failed} at lr {lr:g}"


def peak_memory() -> int:
    """Of the first device; on a CPU of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _means(values: list):
    """Of numbers, or of each place of lists: scores of classes."""
    if not any(isinstance(value, list) for value in values):
        return _mean(values)
    return [_mean(list(of_class)) for of_class in zip(*values, strict=True)]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
