"""The card of an export on the Hugging Face Hub: its metadata, its text, a picture.

Source of the fields: the Hub's documentation, "Model Cards" and "Model Card Metadata".
"""

from collections.abc import Collection

import numpy as np
from jaxtyping import Float, Int

from vpt_jax import methods
from vpt_jax.checkpoints.zoo import Entry
from vpt_jax.objectives import OBJECTIVES
from vpt_jax.reports import style
from vpt_jax.storage import hub

NAMED = 20  # classes, at most, that a confusion matrix names
LIBRARY = "vpt-jax"
METRICS = {"top1": "accuracy"}  # what the Hub calls them


def text(
    name: str,
    manifest: dict,
    result: dict,
    entry: Entry | None,
    files: Collection[str],
) -> str:
    """The whole README.md.

    Args:
        name: owner/name of the repository.
        manifest: Of the export, as it is pushed.
        result: Of its run.
        entry: Of its backbone in the zoo, if it is there.
        files: Names of the others in the repository.
    """
    head = f"---\n{_metadata(manifest, result, entry)}\n---\n"
    parts = [head, _about(manifest, result), _use(name, manifest, files)]
    parts += [_table(manifest, result), _pictures(files), _licence(entry)]
    return "\n".join(part for part in parts if part)


def confusion(
    labels: Int[np.ndarray, " n"],
    outputs: Float[np.ndarray, "n C"],
    classes: tuple[str, ...],
) -> bytes:
    """A picture of which class is taken for which, rows in percent."""
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (labels, outputs.argmax(-1)), 1)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.5 + 0.3 * min(len(classes), NAMED)
    figure = style.canvas(side + 1, side)
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(drawn, label="% of the class's test images", shrink=0.8)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    if len(classes) <= NAMED:
        axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
        axes.set_yticks(range(len(classes)), classes)
    return style.png(figure, f"{int(counts.sum()):,} test images")


def _metadata(manifest: dict, result: dict, entry: Entry | None) -> str:
    library = hub.library()
    task = _task(manifest)
    base = entry.url.removeprefix(hub.SCHEME) if entry else ""
    known = entry is not None and entry.url.startswith(hub.SCHEME)
    metric = result["metric"]
    scored = library.EvalResult(
        task_type="image-classification",
        dataset_type=task,
        dataset_name=task,
        dataset_split="test",
        metric_type=METRICS.get(metric, metric),
        metric_name=OBJECTIVES[manifest["objective"]].LABEL,
        metric_value=round(manifest["metrics"][metric], 4),
    )
    data = library.ModelCardData(
        library_name=LIBRARY,
        pipeline_tag="image-classification",
        license=entry.licence.lower() if entry else "unknown",
        base_model=base.partition("@")[0] if known else None,
        base_model_relation="adapter" if known else None,
        datasets=[task],
        tags=["visual-prompt-tuning", "jax", "flax", _label(manifest)],
        model_name=f"{_label(manifest)} on {task}",
        eval_results=[scored],
    )
    return data.to_yaml()


def _task(manifest: dict) -> str:
    return manifest["config"]["task"].rpartition(":")[2]


def _label(manifest: dict) -> str:
    options = dict(manifest["config"]["method"])
    return methods.label(options.pop("name"), options, manifest["backbone"])


def _about(manifest: dict, result: dict) -> str:
    objective = OBJECTIVES[manifest["objective"]]
    score = manifest["metrics"][objective.METRIC]
    return f"""
# {_label(manifest)} on {_task(manifest)}

`{manifest["backbone"]}`, frozen, with what `{_label(manifest)}` adds to it, tuned by
vpt_jax for the {len(manifest["classes"])} classes of `{_task(manifest)}`:
**{score:.2f} {objective.UNIT}** {objective.LABEL} on {result["n_test"]:,} test images.
This repository holds the {result["trainable_params"]:,} tuned parameters
({result["tuned_percent"]:.2f} % of the network) and not the backbone.
"""


def _use(name: str, manifest: dict, files: Collection[str]) -> str:
    python = f"""
## Use

```python
import vpt_jax

model = vpt_jax.load("hf://{name}")  # @REVISION pins it
probabilities = model.predict(images)  # uint8 RGB arrays (h, w, 3) of any sizes
```

The weights of the backbone are fetched from their publisher; another copy is named by
`load(..., checkpoint=PATH)`. Their sha256 must be
`{manifest["checkpoint_sha256"]}`.
"""
    torch = """
In PyTorch, with `vpt_torch.py` and timm: `vpt_torch.load(FOLDER, backbone=FILE)`, where
the file holds these weights with timm's names.
"""
    more = torch if "vpt_torch.py" in files else ""
    return python + more


def _table(manifest: dict, result: dict) -> str:
    metric, unit = result["metric"], OBJECTIVES[manifest["objective"]].UNIT
    std = result[f"test_{metric}_std"]
    several = [] if std is None else [("mean of all seeds", _spread(result, unit))]
    rows = [
        *((f"test {k}", f"{v:.2f}") for k, v in manifest["metrics"].items() if v),
        *several,
        ("seed", manifest["seed"]),
        ("epochs, batch size", f"{result['epochs']}, {result['batch_size']}"),
        ("optimizer", result["optimizer"]),
        ("learning rate", f"{result['lr']:g}"),
        ("weight decay", f"{result['weight_decay']:g}"),
        ("image size", f"{result['image_size']} px"),
        ("preprocessing", manifest["config"]["data"]["preset"]),
        ("precision", result["precision"]),
        ("training images", f"{result['n_train']:,}"),
        ("fingerprint of the data", f"`{result['data_fingerprint']}`"),
    ]
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## Figures\n\n| | |\n|---|---|\n{lines}\n"


def _spread(result: dict, unit: str) -> str:
    metric = result["metric"]
    mean, std = result[f"test_{metric}"], result[f"test_{metric}_std"]
    return f"{mean:.2f} ± {std:.2f} {unit}"


def _pictures(files: Collection[str]) -> str:
    titles = {"learning_curve.png": "Learning curve", "confusion.png": "Confusion"}
    return "\n".join(
        f"![{title}]({name})\n" for name, title in titles.items() if name in files
    )


def _licence(entry: Entry | None) -> str:
    if entry is None:
        return "## Licence\n\nThat of the backbone's weights, unknown here.\n"
    where = f" ({entry.url})" if "://" in entry.url else ""
    return (
        f"## Licence\n\n{entry.licence}, that of the published weights of "
        f"`{entry.name}`{where}, on which this was tuned. The data has its own.\n"
    )
