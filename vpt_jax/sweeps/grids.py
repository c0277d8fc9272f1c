"""What the public code and the paper try for each method.

Source: `tune_vtab.py:100` and `tune_fgvc.py:31` of the public code; prompt lengths,
adapter reductions and MLP depths are the paper's (section 4 and appendix B).
"""

from vpt_jax.errors import UserError
from vpt_jax.methods import METHODS, Choice

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
"""Base learning rates, per 256 images."""

WEIGHT_DECAYS = (0.01, 0.001, 0.0001, 0.0)

_LENGTHS = {"vit": (1, 5, 10, 50, 100, 200), "swin": (1, 5, 10, 50)}
_STATIC = {
    "prompt_pad": "padding=1,3,5,7,9,11",
    "adapter": "reduction=8,64,256",
    "mlp": "mlp_layers=2,3,5,9",
}


def default(choices: tuple[Choice, ...], backbone: str, group: str) -> str:
    """The name of the public grid for a method.

    Args:
        choices: The methods; the first one decides.
        backbone: Name, such as 'vit_b16'.
        group: Of the task; 'fgvc' has grids of its own.
    """
    first, fgvc = choices[0].name, group == "fgvc"
    resnet = backbone.startswith("resnet")
    if METHODS[first].optimizer == "adamw":
        if resnet:
            return "finetune_resnet_fgvc" if fgvc else "finetune_resnet"
        return "finetune"
    if first in ("linear", "mlp", "sidetune"):
        return "linear_mae" if backbone.startswith("mae") else "linear"
    if resnet:
        return "prompt_resnet"
    return "prompt_fgvc" if fgvc else "prompt"


def learning_rates(name: str) -> tuple[float, ...]:
    """The base learning rates of a grid."""
    if name not in LEARNING_RATES:
        raise UserError(
            f"sweep.grid {name!r} is unknown; known: {', '.join(LEARNING_RATES)}"
        )
    return LEARNING_RATES[name]


def static_axes(choices: tuple[Choice, ...], backbone: str) -> str:
    """What the paper tries besides, for `sweep.over=paper`; '' for nothing."""
    first = choices[0].name
    if first == "prompt":
        family = "swin" if backbone.startswith("swin") else "vit"
        return "length=" + ",".join(map(str, _LENGTHS[family]))
    return _STATIC.get(first, "")
