"""Models of the tests."""

from flax import nnx

from vpt_jax import methods
from vpt_jax.objectives import classification


def build_model(backbone, num_classes, chosen, seed=1):
    """A plain backbone with a classifier's head and methods."""
    rngs = nnx.Rngs(seed)
    head = classification.head(backbone.width, num_classes, rngs)
    return methods.build(backbone, head, chosen, rngs)
