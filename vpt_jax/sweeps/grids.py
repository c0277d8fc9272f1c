"""The learning rates and weight decays that the public code and the paper try.

Source: `tune_vtab.py:100` and `tune_fgvc.py:31` of the public code. What is tried
besides, and which methods have which grid, is in `methods.recipes`.
"""

from vpt_jax.errors import UserError
from vpt_jax.methods import Choice, recipes

LEARNING_RATES = {
    "finetune": (5e-3, 1e-3, 5e-4, 1e-4),
    "finetune_resnet": (0.5, 0.25, 0.05, 0.025, 5e-3, 2.5e-3, 5e-4, 2.5e-4),
    "finetune_resnet_fgvc": (0.05, 0.025, 5e-3, 2.5e-3),
    "linear": (50.0, 25.0, 10.0, 5.0, 2.5, 1.0, 0.5, 0.25, 0.1, 0.05),
    "linear_mae": (
        *(50.0, 25.0, 10.0, 5.0, 2.5, 1.0, 0.5, 0.25, 0.1, 0.05),
        *(0.025, 5e-3, 2.5e-3),
    ),
    "prompt": (50.0, 25.0, 10.0, 5.0, 2.5, 1.0, 0.5, 0.25, 0.1, 0.05),
    "prompt_fgvc": (50.0, 25.0, 10.0, 5.0, 2.5, 1.0, 0.5, 0.25, 0.1),
    "prompt_largerlr": (1000.0, 500.0, 250.0, 100.0),
    "prompt_resnet": (5.0, 2.5, 1.0, 0.5, 0.25, 0.1, 0.05, 0.025, 0.01),
}
"""Base learning rates, per 256 images.

A backbone or a group of tasks that has a grid of its own is part of its name.
"""

WEIGHT_DECAYS = (0.01, 0.001, 0.0001, 0.0)


def default(choices: tuple[Choice, ...], backbone: str, group: str) -> str:
    """The name of the public grid for a method.

    Args:
        choices: The methods; the first one decides.
        backbone: Name, such as 'vit_b16'.
        group: Of the task; 'fgvc' has grids of its own.
    """
    grid, family = choices[0].recipe.kind.grid, recipes.family(backbone)
    names = f"{grid}_{family}_{group}", f"{grid}_{family}", f"{grid}_{group}", grid
    return next(name for name in names if name in LEARNING_RATES)


def learning_rates(name: str) -> tuple[float, ...]:
    """The base learning rates of a grid."""
    if name not in LEARNING_RATES:
        raise UserError(
            f"sweep.grid {name!r} is unknown; known: {', '.join(LEARNING_RATES)}"
        )
    return LEARNING_RATES[name]


def static_axes(choices: tuple[Choice, ...], backbone: str) -> str:
    """What the paper tries besides, for `sweep.over=paper`; '' for nothing."""
    axes = choices[0].recipe.axes
    return axes.get(recipes.family(backbone), axes.get("", ""))
