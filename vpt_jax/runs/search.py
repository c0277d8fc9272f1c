"""The learning rate of a run with `optim.lr=auto`: a small sweep in its own folder.

Every rate of the method's public grid (`sweeps.grids`) is trained for a few epochs on
nine tenths of the training images and judged on the last; the better third goes on to
three times as many epochs, and so on. That is a unit of a sweep, with its cohorts,
memory, records and checkpoints: a killed search continues inside it.

The rates are compared at their peak: after a short warm-up they stay there. A schedule
that is squeezed into a few epochs anneals rates that are too high for a long run, and
they win. They are judged by the loss on the held-out images, which ranks them long
before they classify: a deep network of prompts needs a dozen epochs for that.
"""

import dataclasses
import math
import pathlib
from types import ModuleType

from vpt_jax.checkpoints import Pretrained
from vpt_jax.errors import UserError
from vpt_jax.experiment import Experiment
from vpt_jax.progress import SweepTable, say
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
    own = dataclasses.replace(
        experiment,
        data=dataclasses.replace(experiment.data, held_out=True),
        optimizer=dataclasses.replace(optimizer, schedule="flat", warmup_epochs=0),
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
    experiment: Experiment, pretrained: Pretrained, path: pathlib.Path
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
    run = UnitRun(tried, folder, TITLE, _rank)
    with SweepTable({TITLE: (len(tried.trials), objective)}) as table:
        images = TuningImages(train, val)
        run.train(None, rounds(tried), images, pretrained, table)
    of_rounds = [cohort.records or [] for cohort in run.cohorts()]
    last: dict[int, dict] = {}
    for records in of_rounds:
        last |= {record["position"]: record for record in records}
    longest = max(
        (r["epochs"] for r in last.values() if r["status"] == "ok"), default=0
    )
    best = survivors((r for r in last.values() if r["epochs"] == longest), 1, _rank)
    if not best:
        raise UserError(
            "optim.lr=auto: the loss was not finite at any rate down to "
            f"{min(t.lr for t in tried.trials):g}; give optim.lr a lower number in "
            "another --workdir"
        )
    return _story([last[k] for k in sorted(last)], last[best[0]], of_rounds, objective)


def _rank(record: dict) -> float:
    loss = record["val_loss"]
    return -math.inf if loss is None else -loss


def _story(last: list[dict], best: dict, of_rounds, objective: ModuleType) -> dict:
    """What result.json says: of each rate, what its last round left."""
    spent = [record["train_seconds"] for records in of_rounds for record in records]
    keys = ("val_loss", f"val_{objective.METRIC}", "epochs")
    return {
        "rates": [record["lr"] for record in last],
        **{key: [record[key] for record in last] for key in keys},
        "chosen": best["lr"],
        "seconds": sum(spent),
    }
