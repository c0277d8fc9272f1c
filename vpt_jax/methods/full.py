"""Full fine-tuning: every parameter is trained (paper, section 4.1 "Full")."""

import dataclasses

from flax import nnx

from vpt_jax.backbones.layers import BatchNorm
from vpt_jax.errors import UserError
from vpt_jax.model import Model
from vpt_jax.types import Path


@dataclasses.dataclass(frozen=True)
class FullConfig:
    """Options of full fine-tuning; what the public code sets here and nowhere else.

    Attributes:
        backbone_dropout: Rate in the embedding and in each MLP; None: the family's own.
        drop_path: Probability of leaving out a residual branch of the last block,
            growing linearly from 0 at the first; None: the family's own.
    """

    backbone_dropout: float | None = None
    drop_path: float | None = None

    def __post_init__(self):
        for option in ("backbone_dropout", "drop_path"):
            rate = getattr(self, option)
            if rate is not None and not 0 <= rate < 1:
                raise UserError(f"method.{option} {rate} must be in [0, 1)")


def attach(model: Model, config: FullConfig, rngs: nnx.Rngs) -> None:
    """Turn on the backbone's own dropout, drop path and batch statistics."""
    backbone = model.backbone
    dropout, drop_path = config.backbone_dropout, config.drop_path
    if dropout is None:
        dropout = backbone.config.dropout
    if drop_path is None:
        drop_path = backbone.config.drop_path
    for _, module in nnx.iter_modules(backbone):
        if isinstance(module, nnx.Dropout):
            module.rate = dropout
        if isinstance(module, BatchNorm):
            module.use_batch = True
    last = max(len(backbone.blocks) - 1, 1)
    for i, block in enumerate(backbone.blocks):
        if hasattr(block, "drop_path"):
            block.drop_path.rate = drop_path * i / last


def group(path: Path, variable: nnx.Variable, config: FullConfig, model: Model):
    """Everything is trained; what is no parameter (running statistics) follows."""
    return "stats" if isinstance(variable, nnx.BatchStat) else "trainable"
