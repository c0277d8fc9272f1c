"""ViT as tuned after masked autoencoding (MAE, He et al., arXiv 2111.06377).

The features are the mean of the image tokens, then a norm that no pre-trained file has:
it starts as scale 1 and bias 0, and the file's own final norm is not used
(`src/models/vit_backbones/vit_mae.py:20-26` of the public VPT code).
"""

import dataclasses
from typing import ClassVar

from jaxtyping import Array, Float

from vpt_jax.backbones import positions
from vpt_jax.backbones.vit import ViT, ViTConfig, sized


@dataclasses.dataclass(frozen=True)
class MAEConfig(ViTConfig):
    """The shape of an MAE encoder."""

    dropout: ClassVar[float] = 0.0
    drop_path: ClassVar[float] = 0.1
    resize: ClassVar = staticmethod(positions.cubic)


class MAE(ViT):
    """A backbone; its features are the mean over all tokens but CLS, then `norm`."""

    reads = slice(1, None)

    def pool(self, tokens: Float[Array, "B M D"]) -> Float[Array, "B D"]:
        """The norm of the mean of the tokens that were read."""
        return self.norm(tokens.mean(axis=1))


CONFIGS = {
    "mae_b16": sized(MAEConfig, "b", 16),
    "mae_l16": sized(MAEConfig, "l", 16),
    "mae_h14": sized(MAEConfig, "h", 14),
}
