"""Visual Prompt Tuning in JAX and Flax: `tune` a configuration, `load` the result,
`push` it to the Hugging Face Hub."""

from vpt_jax.api import Bank, Classifier, load, push, tune
from vpt_jax.errors import UserError

__version__ = "0.1.0"

__all__ = ["Bank", "Classifier", "UserError", "load", "push", "tune"]
