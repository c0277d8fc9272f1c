"""A tuned model on the test images of its task."""

import time

from vpt_jax import data
from vpt_jax.serving.classifier import Classifier
from vpt_jax.storage.files import write_json
from vpt_jax.storage.paths import Folder


def evaluate(
    model: Classifier,
    workdir: Folder,
    data_dir: str | None = None,
    test_examples: int | None = None,
    several: bool | None = None,
) -> dict:
    """Score it, and write eval.json.

    Args:
        model: From `load`.
        workdir: Gets eval.json.
        data_dir, test_examples: As in the configuration; None: as the run had them.
        several: Whether pixels are scored at several scales as well; None: likewise.
    """
    if several is not None:
        model = model.looking(several)
    config = model.manifest["config"]
    data_dir = data_dir or config["data"]["dir"]
    ignored = tuple(config["data"].get("ignored", ()))
    task = data.get_task(config["task"], data_dir, ignored)
    limit = test_examples or config["data"]["test_examples"]
    test = task.checked("test", data_dir, limit=limit)
    started = time.perf_counter()
    scores = model.scores(test)
    result = {
        "task": config["task"],
        "seed": model.manifest["seed"],
        **{f"test_{name}": value for name, value in scores.items()},
        "n_test": len(test),
        "seconds": time.perf_counter() - started,
    }
    write_json(workdir / "eval.json", result)
    return result
