"""What is fixed for a run: the network, and how it is trained."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from vpt_jax.network import Network
from vpt_jax.training import optim

MIN_CACHED_PIECES = 2  # embed alone is no work worth the memory of its output


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that is fixed for a run, none of it an array that training changes.

    Attributes:
        network: What is trained.
        num_examples: Training images.
        batch_size: B, at most `num_examples`; an epoch's last batch may be smaller.
        epochs, warmup_epochs: Of the cosine schedule.
        schedule, min_lr: See `optim.make_schedule`.
        optimizer, momentum: See `optim.make_optimizer`.
        head_multiplier: Of the learning rate of the head.
        class_weights: (C,), the weight of each class in the loss.
        head_start: 'random', or 'fitted' to the features before the first step.
        cached: Whether the frozen first pieces are run once, not in every epoch.
        programs: What `training.programs` has made for it.
    """

    network: Network
    num_examples: int
    batch_size: int
    epochs: int
    warmup_epochs: int | float
    schedule: str
    optimizer: str
    momentum: float
    class_weights: np.ndarray
    min_lr: float = 0.0
    head_multiplier: float = 1.0
    head_start: str = "random"
    cached: bool = True
    programs: dict = dataclasses.field(
        init=False, default_factory=dict, compare=False, repr=False
    )

    @property
    def steps_per_epoch(self) -> int:
        """Batches, the last one possibly smaller."""
        return -(-self.num_examples // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Of the whole run."""
        return self.epochs * self.steps_per_epoch

    def images_seen(self, steps: int) -> int:
        """Of one trial in its first `steps` steps, without what fills up a batch."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        return epochs * self.num_examples + rest * self.batch_size

    @functools.cached_property
    def learning_rate(self) -> Callable:
        """(peak, step) to the learning rate."""
        return optim.make_schedule(
            self.schedule,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.epochs,
            warmup_epochs=self.warmup_epochs,
            min_lr=self.min_lr,
        )

    @functools.cached_property
    def make_optimizer(self) -> Callable:
        """(lr, weight decay, lr of the head) to an optax transformation."""
        return optim.make_optimizer(
            self.optimizer, self.momentum, self.network.final_biases
        )

    @functools.cached_property
    def cut(self) -> int:
        """Leading pieces whose output is cached; 0 when nothing worth it is frozen.

        Or when the images themselves are different in every epoch.
        """
        if not self.cached or self.network.varies:
            return 0
        cut = self.network.first_trained
        return cut if cut >= MIN_CACHED_PIECES else 0
