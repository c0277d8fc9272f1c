"""Visual Prompt Tuning in JAX and Flax: `tune` a configuration, `load` the result."""

from vpt_jax.api import Classifier, load, tune
from vpt_jax.errors import UserError

__all__ = ["Classifier", "UserError", "load", "tune"]
