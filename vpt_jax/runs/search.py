"""The learning rate of a run with `optim.lr=auto`: a small sweep in its own folder.

Every rate of the method's public grid (`sweeps.grids`) is trained for a few epochs on
nine tenths of the training images and judged on the last; the better third goes on to
three times as many epochs, and so on. That is a unit of a sweep, with its cohorts,
memory, records and checkpoints: a killed search continues inside it.

Each round is a whole run in short: the schedule is squeezed into its epochs and taken
step by step, as the warm-up is less than one of them. The loss on the held-out images
decides who goes on: after a few steps from a random head scores are luck, while the
loss tells how far a rate has thrown the head off (prompts in a small backbone need a
dozen epochs until they classify anything). Of the last round's rates whose scores are
within a standard error of the best, that of the lowest loss is taken (the
one-standard-error rule: Hastie, Tibshirani and Friedman 2009, section 7.10); of rates
that all still guess this is again the lowest loss.
"""

import dataclasses
import functools
import math
from types import ModuleType

from vpt_jax.checkpoints import Pretrained
from vpt_jax.errors import UserError
from vpt_jax.experiment import Experiment
from vpt_jax.objectives import validation
from vpt_jax.progress import SweepTable, say
from vpt_jax.storage.paths import Folder
from vpt_jax.sweeps import plan
from vpt_jax.sweeps.records import JobFolder
from vpt_jax.sweeps.selection import TuningImages, survivors
from vpt_jax.sweeps.unit import UnitRun

FOLDER, CHOICE, TITLE = "search", "choice.json", "lr search"
SHARE = 18  # percent of the run's epochs that the last round trains for
HALVING = 3  # one in so many rates goes on, for so many times the epochs


def unit(experiment: Experiment) -> plan.Unit:
    """What is tried: one trial per rate, with the run's first seed."""
    assert experiment.search is not None  # or there is nothing to be found
    optimizer, [seed, *_] = experiment.optimizer, experiment.seeds
    epochs = max(1, experiment.epochs * SHARE // 100)
    warmup = optimizer.warmup_epochs * epochs / experiment.epochs
    own = dataclasses.replace(
        experiment,
        data=dataclasses.replace(experiment.data, held_out=True),
        optimizer=dataclasses.replace(optimizer, schedule="step", warmup_epochs=warmup),
        epochs=epochs,
        seeds=(seed,),
        val_every=0,
        search=None,
    )
    trials = []
    for base_lr in experiment.search.base_lrs:
        lr = base_lr * experiment.batch_size / 256
        trials.append(plan.GridTrial(lr, optimizer.weight_decay, seed, base_lr))
    return plan.Unit("rates", "", own, tuple(trials))


def rounds(tried: plan.Unit) -> list[tuple[int, int]]:
    """(epochs, rates) of each round."""
    return plan.rungs(tried.experiment.epochs, HALVING, len(tried.trials), least=1)


def settled(
    experiment: Experiment, pretrained: Pretrained, path: Folder
) -> tuple[Experiment, dict]:
    """The experiment with a rate, and what result.json says of how it was found.

    Args:
        experiment: Of a run, which may need no search.
        pretrained: Its backbone.
        path: The run's folder, where the choice is kept and found again.

    Raises:
        UserError: No rate could be trained.
    """
    if experiment.search is None:
        return experiment, {}
    tried = unit(experiment)
    content = {"config": experiment.content, "units": [tried.as_json()]}
    folder = JobFolder(path / FOLDER, content)
    chosen = folder.read(CHOICE)
    if chosen is None:
        chosen = _search(tried, folder, pretrained)
        folder.write(CHOICE, chosen)
    lr = chosen["chosen"]
    say(
        f"optim.lr=auto: {lr:g} of {len(tried.trials)} rates, found in "
        f"{chosen['seconds']:.0f} s of training"
    )
    return experiment.with_lr(lr), {"lr_search": chosen}


def _search(tried: plan.Unit, folder: JobFolder, pretrained: Pretrained) -> dict:
    splits, objective = tried.experiment.data, tried.experiment.data.task.objective
    train, val = splits.training(), splits.validation()
    assert val is not None  # they are held out
    run = UnitRun(tried, folder, TITLE, functools.partial(_by_loss, objective))
    with SweepTable({TITLE: (len(tried.trials), objective)}) as table:
        images = TuningImages(train, val)
        run.train(None, rounds(tried), images, pretrained, table)
    records = [r for cohort in run.cohorts() for r in cohort.records or []]
    good = [record for record in records if record["status"] == "ok"]
    if not good:
        raise UserError(
            "optim.lr=auto: the loss was not finite at any rate down to "
            f"{min(t.lr for t in tried.trials):g}; give optim.lr a lower number in "
            "another --workdir"
        )
    longest = max(record["epochs"] for record in good)
    finalists = [record for record in good if record["epochs"] == longest]
    best = _best(objective, finalists, len(val))
    last = {record["position"]: record for record in records}  # later rounds are later
    return {
        "rates": [trial.lr for trial in tried.trials],
        **{
            key: [last[k][key] for k in sorted(last)]
            for key in (f"val_{objective.METRIC}", "val_loss", "epochs")
        },
        "chosen": tried.trials[best].lr,
        "seconds": sum(record["train_seconds"] for record in records),
    }


def _by_loss(objective: ModuleType, record: dict) -> tuple[float, float]:
    """Highest for the lowest loss; by score where the objective scores no loss."""
    loss = math.inf if record["val_loss"] is None else record["val_loss"]
    return -loss, validation(objective)(record)


def _best(objective: ModuleType, finalists: list[dict], images: int) -> int:
    """Position of the rate to take, by scores in percent of so many held-out images."""
    score = validation(objective)
    best = max(map(score, finalists))
    share = min(abs(best) / 100, 1.0)
    error = 100 * math.sqrt(share * (1 - share) / images)
    near = [record for record in finalists if score(record) >= best - error]
    [position] = survivors(near, 1, functools.partial(_by_loss, objective))
    return position
