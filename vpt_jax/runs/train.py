"""Trials trained at once in a folder, or continued where an earlier call stopped."""

import dataclasses
from collections.abc import Callable, Sequence

import jax.numpy as jnp

from vpt_jax import parallel
from vpt_jax.data.source import Source
from vpt_jax.runs.log import MetricsLog
from vpt_jax.storage.paths import Folder
from vpt_jax.training import loop
from vpt_jax.training.memory import explained
from vpt_jax.training.optim import Hyper
from vpt_jax.training.setup import Setup
from vpt_jax.training.state import Checkpoints


@dataclasses.dataclass(frozen=True)
class Trial:
    """What may differ between trials of one program.

    Attributes:
        lr: Peak, scaled by batch / 256.
        weight_decay, seed: Of the trial.
    """

    lr: float
    weight_decay: float
    seed: int


def train_trials(
    setup: Setup,
    trials: Sequence[Trial],
    examples: Source,
    val: Source | None,
    val_every: int,
    place: str,
    path: Folder,
    on_chunk: Callable[[int, float, float, float], None],
    fill_to: int = 0,
) -> tuple[loop.Outcome, list[dict]]:
    """Train trials at once.

    Args:
        setup: What is trained.
        trials: Each with its own rate, decay and seed.
        examples, val: Training images, and those that are scored on the way.
        val_every, place, on_chunk: See `loop.train`.
        path: Gets metrics.jsonl, tensorboard/ and checkpoints/.
        fill_to: Repeat the last trial up to this number, unseen by the log, so that
            one compiled program serves several numbers of trials.

    Returns:
        What training left, and the lines of metrics.jsonl.

    Raises:
        UserError: It does not fit in memory.
    """
    filled = [*trials, *[trials[-1]] * (fill_to - len(trials))]
    hyper = Hyper(
        jnp.asarray([trial.lr for trial in filled], jnp.result_type(float)),
        jnp.asarray([trial.weight_decay for trial in filled], jnp.result_type(float)),
        jnp.asarray([trial.seed for trial in filled], jnp.uint32),
    )
    own = [{"seed": t.seed, "lr": t.lr, "weight_decay": t.weight_decay} for t in trials]
    log = MetricsLog(path, own, setup.network.objective.METRIC)
    with explained(setup, len(filled)):
        outcome = loop.train(
            setup,
            parallel.make_mesh(len(filled), setup.batch_size),
            hyper,
            examples,
            val,
            val_every,
            place,
            Checkpoints(path / "checkpoints", log.flush),
            log.start,
            log.add,
            on_chunk,
        )
    log.close()
    return outcome, log.lines()
