"""Visual Prompt Tuning in JAX and Flax: `tune` a configuration, `load` the result,
`push` it to the Hugging Face Hub."""

from vpt_jax.api import Classifier, load, push, tune
from vpt_jax.errors import UserError

__all__ = ["Classifier", "UserError", "load", "push", "tune"]
