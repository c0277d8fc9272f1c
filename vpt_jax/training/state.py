"""Checkpoints of the training state with Orbax; no frozen tensor is ever in them."""

from collections.abc import Callable

import jax
import numpy as np
import orbax.checkpoint as ocp

from vpt_jax.errors import UserError
from vpt_jax.storage.paths import Folder, is_remote
from vpt_jax.training.step import State


class Checkpoints:
    """The checkpoints of one run; the newest two are kept.

    A checkpoint is a flat mapping from the name of each tensor of `State` to its array,
    saved in the background under the number of finished steps. Orbax renames it, or in
    a bucket marks it, when it is complete, so a killed save leaves nothing that looks
    like a checkpoint.
    """

    def __init__(self, directory: Folder, before: Callable[[], None]):
        """`before` a save it writes what a run that continues from there must find."""
        self.directory, self._before = directory, before
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        self._manager = ocp.CheckpointManager(
            directory if is_remote(directory) else directory.absolute(),
            options=options,
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def save(self, step: int, state: State, train_seconds: float) -> None:
        """Start to save; an earlier save that failed raises here."""
        self._before()
        self._manager.save(
            step,
            args=ocp.args.StandardSave(_by_name(state)),
            custom_metadata={"train_seconds": train_seconds},
        )

    def restore(self, like: State) -> tuple[int, State, float]:
        """The newest (step, state, train_seconds), or (0, `like`, 0) without one.

        Raises:
            UserError: The newest checkpoint is of another model.
        """
        step = self._manager.latest_step()
        if step is None:
            return 0, like, 0.0
        wanted = _by_name(like)
        found = self._manager.item_metadata(step)
        shapes = {name: (x.shape, np.dtype(x.dtype)) for name, x in wanted.items()}
        if {n: (tuple(x.shape), np.dtype(x.dtype)) for n, x in found.items()} != shapes:
            raise UserError(
                f"checkpoint {self.directory / str(step)} holds other tensors than "
                "this run trains; use another --workdir"
            )
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, wanted)
        arrays = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        structure = jax.tree.structure(like)
        state = jax.tree.unflatten(structure, [arrays[name] for name in wanted])
        seconds = self._manager.metadata(step).custom_metadata["train_seconds"]
        return step, state, seconds

    def close(self) -> None:
        """Wait for the last save; a failure raises here and is not lost."""
        self._manager.wait_until_finished()
        self._manager.close()


def _by_name(state: State) -> dict[str, jax.Array]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
