"""`run`: an experiment from the folder to its result. A killed one continues."""

import jax
import numpy as np

from vpt_jax import export, parallel
from vpt_jax.checkpoints import Pretrained
from vpt_jax.data.source import Source
from vpt_jax.errors import UserError
from vpt_jax.experiment import Experiment
from vpt_jax.progress import Bar, say
from vpt_jax.runs import result, search
from vpt_jax.runs.folder import RunFolder, difference, environment, unnamed
from vpt_jax.runs.train import Trial, train_trials
from vpt_jax.storage.paths import Folder
from vpt_jax.training import inputs, loop, programs
from vpt_jax.training.judge import Judged, judge
from vpt_jax.training.memory import explained
from vpt_jax.training.setup import Setup
from vpt_jax.training.step import State


def run(
    experiment: Experiment, path: Folder, pretrained: Pretrained | None = None
) -> dict:
    """Train every seed, score the test images once, export what was tuned.

    Args:
        experiment: From `resolution.resolve`.
        path: Where all is written.
        pretrained: The experiment's backbone, if it is in memory already.

    Returns:
        The content of result.json, with 'workdir' added.
    """
    examples, val = experiment.data.training(), experiment.data.validation()
    setup = experiment.make_setup(examples.labels, pretrained)
    if experiment.export_backbone:
        export.check_backbone(setup.network)

    folder = RunFolder(path, "config.json", experiment.content, "run", difference)
    with folder.locked():
        known = folder.result
        if known is not None:
            say(f"{path} holds a finished run; delete it or use another --workdir")
            return known | {"workdir": str(path)}
        folder.write("environment.json", environment())
        beside = _run_beside(experiment, path)
        place = folder.decided(
            "inputs", lambda: inputs.decide(setup, experiment.limits, examples)
        )
        backbone = setup.network.pretrained
        experiment, searched = search.settled(experiment, backbone, path)
        trials = [
            Trial(experiment.optimizer.lr, experiment.optimizer.weight_decay, seed)
            for seed in experiment.seeds
        ]
        with Bar(setup.num_steps, setup.network.objective.LABEL) as bar:
            outcome, lines = train_trials(
                *(setup, trials, examples, val, experiment.val_every, place, path),
                bar.update,
            )
        _draw(experiment, lines, path)
        test = experiment.data.test()
        found = _finish(experiment, setup, outcome, lines, (examples, val, test), path)
        found["beside"] = beside
        _draw_looks(experiment, path)
        found |= searched
        folder.finish(found)
    _warn_of_collapse(experiment, setup, lines)
    return found | {"workdir": str(path)}


def default_path(experiment: Experiment) -> Folder:
    """runs/<task>-<method>-<backbone>-<hash of the whole configuration>."""
    network, content = experiment.network, experiment.content
    parts = content["task"], network.method_name, network.backbone.name
    return unnamed(*parts, content)


def _run_beside(experiment: Experiment, path: Folder) -> dict[str, dict]:
    """The results of what is tuned beside it, each in a folder of its own."""
    found = {}
    for name, other in experiment.beside.items():
        say(f"beside it: {name}")
        found[name] = run(other, path / "beside" / name)
        del found[name]["workdir"], found[name]["beside"]
    return found


def _finish(
    experiment: Experiment,
    setup: Setup,
    outcome: loop.Outcome,
    lines: list[dict],
    sources: tuple[Source, Source | None, Source],
    path: Folder,
) -> dict:
    """The test images, once, for all trials together; then the exports."""
    objective, (*_, test) = setup.network.objective, sources
    say(f"scoring {len(test):,} test images")
    trained, several = parallel.fetch(outcome.state), len(experiment.seeds) > 1
    scores, _, together = _judged(setup, outcome.state, trained.alive, test)
    last = {x["trial"]: x for x in lines if x["epoch"] == experiment.epochs}
    key = f"val_{objective.METRIC}"
    validation = [last.get(t, {}).get(key) for t in range(len(scores))]
    for trial, seed in enumerate(experiment.seeds):
        only = jax.tree.map(lambda x, n=trial: x[n], trained)
        place = path / "export"
        size = export.write(
            place / f"seed_{seed}" if several else place,
            setup.network,
            only.trainable,
            only.stats,
            {
                "config": experiment.content,
                "classes": list(experiment.data.class_names()),
                "objective": experiment.data.task.kind,
                **_numbers(experiment),
                "seed": seed,
                "status": "ok" if only.alive else "failed: the loss was not finite",
                "validation": validation[trial],
                "metrics": scores[trial],
            },
            experiment.export_backbone,
        )
    found = result.of_run(
        *(experiment, setup, outcome, sources, trained.alive),
        *(validation, scores, together, size),
    )
    if objective.DENSE:  # there are several heads, and scores class by class
        found["head"] = experiment.network.head
        found["classes"] = list(experiment.data.class_names())
    return found


def _numbers(experiment: Experiment) -> dict:
    """What masks call the classes, where it is not 0 to C - 1."""
    numbers = experiment.data.task.numbers
    return {} if numbers is None else {"numbers": list(numbers)}


def _judged(setup: Setup, state: State, alive: np.ndarray, test: Source) -> Judged:
    network = setup.network
    mesh = parallel.make_mesh(len(alive), setup.batch_size)
    frozen = programs.place_frozen(network, mesh)
    with explained(setup, len(alive)):
        return judge(network, mesh, state[:2], frozen, test, alive=alive)


def _draw(experiment: Experiment, lines: list[dict], path: Folder) -> None:
    from vpt_jax.reports import figures  # Matplotlib is slow to import

    network = experiment.network
    title = f"{network.method_name} on {experiment.content['task']}"
    curve = path / "figures" / "learning_curve.png"
    title = f"{title}, {network.backbone.name}"
    parallel.first(lambda: figures.learning_curve(lines, title, curve))


def _draw_looks(experiment: Experiment, path: Folder) -> None:
    """Where the networks look, where there are others beside this one."""
    # Process 0 alone cannot run them on the devices of all.
    if not experiment.beside or jax.process_count() > 1:
        return
    from vpt_jax.reports import looks  # see `_draw`

    folders = [*(path / "beside" / name for name in experiment.beside), path]
    try:
        looks.draw(
            folders,
            path / "figures" / "attention.png",
            experiment.network.backbone.checkpoint,
        )
    except UserError as error:  # one of them diverged: that is a result too
        say(f"no picture of where they look: {error}")


def _warn_of_collapse(experiment: Experiment, setup: Setup, lines: list[dict]) -> None:
    """Tell the user when training ended where guessing would have."""
    objective, classes = setup.network.objective, setup.network.num_classes
    for line in (x for x in lines if x["epoch"] == lines[-1]["epoch"]):
        found = line[f"train_{objective.METRIC}"]
        if objective.guessed(found, classes):
            say(
                f"warning: seed {line['seed']} collapsed: {found:.1f} {objective.UNIT} "
                f"{objective.LABEL} on its training images is what guessing among "
                f"{classes} classes gives; try a lower learning rate than "
                f"optim.lr={experiment.optimizer.lr:g}, or --config.optim.lr=auto"
            )
