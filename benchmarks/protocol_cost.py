"""What the protocol costs in images and FLOPs, here and in the public code.

python -m benchmarks.protocol_cost

Per task of VTAB-1k: 40 grid points on 800 images, then five seeds on 1,000, 100 epochs
each. The public code scores the 200 validation images, and in the final runs all test
images as well, after every epoch (`trainer.py`, `tune_vtab.py`); here validation is
scored every tenth epoch of the grid and the test images once.

An image pass is one image through the backbone, with or without a backward pass. FLOPs
are multiply-adds times two: F forward; a training pass costs

    linear     F there; here F once per image, as its features are kept
    vpt_deep   2 F: forward, and backward through activations but not weights
    full       3 F

F includes the prompts. The head is left out: it is below a thousandth.
"""

import dataclasses

from vpt_jax import backbones, data
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.data.vtab import TEST_IMAGES

GRID, SEEDS, EPOCHS, TRAIN, VAL, VAL_EVERY = 40, 5, 100, 800, 200, 10

BACKWARD = {"linear": 0, "vpt_deep": 1, "full": 2}
"""Cost of a backward pass in forward passes."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one task, or several.

    Attributes:
        trained, scored: Image passes with and without a backward pass.
        flops: Of both.
    """

    trained: int
    scored: int
    flops: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.trained + other.trained,
            self.scored + other.scored,
            self.flops + other.flops,
        )


def forward_flops(config: ViTConfig, prompts: int = 0) -> float:
    """Of one image through a ViT with `prompts` tokens in every block."""
    patches = config.grid**2
    tokens, width = 1 + patches + prompts, config.width
    projections = 4 * tokens * width**2
    attention = 2 * tokens**2 * width
    mlp = 2 * tokens * width * config.mlp_dim
    embedding = patches * 3 * config.patch**2 * width
    return 2.0 * (embedding + config.depth * (projections + attention + mlp))


def public(method: str, config: ViTConfig, task: str) -> Cost:
    """The public code, for one task."""
    trained = EPOCHS * (GRID * TRAIN + SEEDS * (TRAIN + VAL))
    scored = EPOCHS * ((GRID + SEEDS) * VAL + SEEDS * TEST_IMAGES[task])
    return _cost(method, config, task, trained, scored)


def ours(method: str, config: ViTConfig, task: str) -> Cost:
    """This project, for one task."""
    test = TEST_IMAGES[task]
    if method == "linear":  # one pass serves all trials: the backbone is frozen
        scored = TRAIN + EPOCHS // VAL_EVERY * VAL + (TRAIN + VAL) + test
        return _cost(method, config, task, 0, scored)
    trained = EPOCHS * (GRID * TRAIN + SEEDS * (TRAIN + VAL))
    scored = GRID * EPOCHS // VAL_EVERY * VAL + SEEDS * test
    return _cost(method, config, task, trained, scored)


def _cost(method, config, task, trained, scored) -> Cost:
    length = data.get_task(task).prompt_lengths[1] if method == "vpt_deep" else 0
    forward = forward_flops(config, length)
    return Cost(trained, scored, forward * ((1 + BACKWARD[method]) * trained + scored))


def markdown(backbone: str = "vit_b16") -> str:
    """A table per method, task by task and in sum."""
    config, parts = backbones.get_config(backbone, None), []
    for method in BACKWARD:
        rows = [
            (task, public(method, config, task), ours(method, config, task))
            for task in data.GROUPS["all"]
        ]
        total = rows[0][1:]
        for _, *pair in rows[1:]:
            total = [a + b for a, b in zip(total, pair, strict=True)]
        lines = [
            f"### {method}, {backbone}",
            "",
            "Thousands of images trained on and scored; PFLOP.",
            "",
            "| task | public images | public PFLOP | our images | our PFLOP | ratio |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name, theirs, own in [*rows, ("all 19", *total)]:
            lines.append(
                f"| {name} | {_images(theirs)} | {theirs.flops / 1e15:,.0f} | "
                f"{_images(own)} | {own.flops / 1e15:,.2f} | "
                f"{theirs.flops / own.flops:,.2f} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _images(cost: Cost) -> str:
    return f"{cost.trained / 1e3:,.0f}, {cost.scored / 1e3:,.0f}"


if __name__ == "__main__":
    print(markdown())
