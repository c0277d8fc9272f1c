"""What a user can do when something does not fit in memory."""

import contextlib
import re
from collections.abc import Iterator

import jax

from vpt_jax.errors import UserError
from vpt_jax.training.setup import Setup

_WANTED = re.compile(r"allocat\w* (\d+) bytes|allocate ([\d.]+[KMGT]i?B)")


@contextlib.contextmanager
def explained(setup: Setup, num_trials: int) -> Iterator[None]:
    """Turn what XLA says when memory is short into one line that says what to lower.

    Args:
        setup: What is trained.
        num_trials: At once.

    Raises:
        UserError: It was too much.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        network, ways = setup.network, []
        if num_trials > jax.device_count():
            ways.append("train fewer trials at once (sweep.trials, fewer seeds)")
        ways.append(f"lower batch_size ({setup.batch_size})")
        if not network.remat:
            ways.append("set backbone.remat=True")
        if not network.shard and jax.device_count() > 1:
            ways.append("set backbone.shard=True")
        if any(hasattr(choice.config, "length") for choice in network.method):
            ways.append("lower method.length")
        ways.append(f"lower image_size ({network.image_size})")
        raise UserError(
            f"{num_trials} trial(s) of batch_size {setup.batch_size} do not fit in the "
            f"memory of {jax.devices()[0].device_kind}{_wanted(error)}; in another "
            f"--workdir: {', or '.join(ways)}"
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of the runtime says that memory was short."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _wanted(error: BaseException) -> str:
    found = _WANTED.search(str(error))
    if not found:
        return ""
    size = f"{int(found[1]) / 1e9:.1f} GB" if found[1] else found[2]
    return f" ({size} more were asked for)"
