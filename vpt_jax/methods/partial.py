"""Partial-k: the last k blocks and the final norm are trained (paper, section 4.1).

Blocks are counted from the end across stages, with what lies between them. So the
paper's Partial-1 of a ResNet is its last bottleneck (`partial-0` of the public code,
whose `partial-1` there is the last stage: as many blocks as that has). BatchNorms in
trained blocks use the statistics of the batch (`src/models/resnet.py`).
"""

import dataclasses

from flax import nnx

from vpt_jax.backbones.layers import BatchNorm
from vpt_jax.errors import UserError
from vpt_jax.model import Model, inside
from vpt_jax.types import Backbone, Path


@dataclasses.dataclass(frozen=True)
class PartialConfig:
    """Options of Partial-k.

    Attributes:
        blocks: k, the number of last blocks that are trained.
        final_norm: Train the final norm too; the public code does not on MoCo v3
            (`vit_models.py:286,291,297`, a condition that is always true).
    """

    blocks: int = 1
    final_norm: bool = True

    def __post_init__(self):
        if self.blocks < 1:
            raise UserError(f"method.blocks {self.blocks} must be at least 1")


def attach(model: Model, config: PartialConfig, rngs: nnx.Rngs) -> None:
    """Nothing to add; refuses more blocks than there are."""
    depth = len(model.backbone.blocks)
    if config.blocks > depth:
        raise UserError(
            f"method.blocks {config.blocks}: the backbone has {depth} blocks"
        )
    for piece in _last_pieces(model, config):
        for _, module in nnx.iter_modules(piece):
            if isinstance(module, BatchNorm):
                module.use_batch = True


def group(path: Path, variable: nnx.Variable, config: PartialConfig, model: Model):
    """The last blocks, the final norm and the head are trained."""
    if path[0] == "head" or inside(model, path, _last_pieces(model, config)):
        return "stats" if isinstance(variable, nnx.BatchStat) else "trainable"
    norm = config.final_norm and path[:2] == ("backbone", "norm")
    return "trainable" if norm else "frozen"


def _last_pieces(model: Model, config: PartialConfig) -> list[Backbone]:
    """The last k blocks and what is between them."""
    pieces = list(model.backbone.pieces)
    first = model.backbone.blocks[-config.blocks]
    for i, piece in enumerate(pieces):
        if piece is first:
            return pieces[i:]
    raise UserError("method partial cannot be combined with sidetune")
