"""A run, resolved: what `resolution.resolve` makes of a configuration, typed and whole.

Every name in it has been looked up: tasks, methods, presets and shapes are the things
themselves. A room takes the part that it needs, and none of them sees a ConfigDict.
"""

import dataclasses
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from vpt_jax import checkpoints, methods
from vpt_jax.checkpoints import Pretrained
from vpt_jax.data.preprocess import Preset
from vpt_jax.data.splits import Splits
from vpt_jax.data.windows import Inference
from vpt_jax.network import Network, trained_weights
from vpt_jax.training.inputs import Limits
from vpt_jax.training.setup import Setup
from vpt_jax.types import Path


@dataclasses.dataclass(frozen=True)
class BackboneChoice:
    """Which backbone, from where, and how it is kept.

    Attributes:
        name: Of `backbones.CONFIGS`.
        checkpoint: A path or address; None: the zoo's file.
        image_size: Side in pixels of what it sees.
        dtype: What the frozen weights are kept in.
        precision: What it computes in.
        scan, remat: See `model.Model`.
        shard: Whether each device keeps only a part of the frozen weights.
    """

    name: str
    checkpoint: str | None
    image_size: int
    dtype: str
    precision: str
    scan: bool
    remat: bool
    shard: bool


@dataclasses.dataclass(frozen=True)
class NetworkChoice:
    """What makes a `Network`: all that serving needs to know of a run.

    Attributes:
        backbone: See there.
        method: The ways of tuning, with their options.
        objective: Of `objectives.OBJECTIVES`.
        num_classes: C.
        image_size: Side in pixels that images are resized to.
        preset: Preprocessing.
        head: Of `objective.HEADS`.
        inference: How images with a class for each pixel are seen.
    """

    backbone: BackboneChoice
    method: tuple[methods.Choice, ...]
    objective: ModuleType
    num_classes: int
    image_size: int
    preset: Preset
    head: str = "linear"
    inference: Inference = Inference()

    @property
    def method_name(self) -> str:
        """'prompt+lora'."""
        return "+".join(choice.name for choice in self.method)

    def load_backbone(self) -> Pretrained:
        """The backbone with its weights.

        Those that the method trains stay as exact as the file has them.
        """
        return checkpoints.load(
            self.backbone.name,
            self.backbone.checkpoint,
            self.backbone.image_size,
            **self._kinds(),
            on_host=self.backbone.shard or jax.process_count() > 1,
        )

    def abstract_backbone(self) -> Pretrained:
        """The backbone with shapes in place of its weights."""
        backbone = self.backbone
        return checkpoints.abstract(backbone.name, backbone.image_size, **self._kinds())

    def _kinds(self) -> dict:
        return {
            "dtype": jnp.dtype(self.backbone.precision),
            "frozen_dtype": jnp.dtype(self.backbone.dtype),
            "trained": self.trained_weights,
            "corners": not self.objective.DENSE,
        }

    def trained_weights(self, graphdef, shapes) -> frozenset[Path]:
        """Paths in the plain backbone of what the method trains."""
        return trained_weights(
            *(graphdef, shapes, self.method),
            *(self.objective, self.head, self.num_classes),
        )

    def make(self, pretrained: Pretrained | None = None) -> Network:
        """The network; `pretrained` from `load_backbone`, None: loads it."""
        backbone = self.backbone
        return Network(
            pretrained=pretrained or self.load_backbone(),
            method=self.method,
            objective=self.objective,
            head=self.head,
            num_classes=self.num_classes,
            image_size=self.image_size,
            preset=self.preset,
            inference=self.inference,
            scan=backbone.scan,
            remat=backbone.remat,
            shard=backbone.shard,
        )


@dataclasses.dataclass(frozen=True)
class Optimization:
    """How the trained tensors move.

    Attributes:
        name: Of `training.optim.OPTIMIZERS`.
        lr: Peak, scaled by batch_size / 256 already.
        base_lr: Per 256 images.
        weight_decay, momentum: See `training.optim`.
        warmup_epochs: At the start.
        schedule: Of `training.optim.SCHEDULES`.
        min_lr: Where the schedule 'poly' ends.
        head_multiplier: Of the learning rate of the head.
        head_start: Of `training.head_start.HEAD_STARTS`.
    """

    name: str
    lr: float
    base_lr: float
    weight_decay: float
    momentum: float
    warmup_epochs: int | float
    schedule: str
    min_lr: float
    head_multiplier: float
    head_start: str


@dataclasses.dataclass(frozen=True)
class Search:
    """What is tried before a run that has no learning rate (`runs.search`).

    Attributes:
        base_lrs: Per 256 images.
    """

    base_lrs: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything about one run of T seeds.

    Attributes:
        data: The task's images.
        network, optimizer: What is trained, and how.
        epochs, batch_size: Of the run.
        seeds: One trial each.
        val_every: Epochs between two scores of the validation images; 0: only the last.
        class_weights: Of `objective.CLASS_WEIGHTS`.
        export_backbone: Whether the backbone is written with what was tuned merged in.
        limits: Memory for what the steps read.
        beside: What is tuned beside it, by name of the method.
        search: For a learning rate, until when `optimizer` has the recipe's; None: it
            is given.
        content: The resolved configuration in plain JSON types, as config.json has it.
    """

    data: Splits
    network: NetworkChoice
    optimizer: Optimization
    epochs: int
    batch_size: int
    seeds: tuple[int, ...]
    val_every: int
    class_weights: str
    export_backbone: bool
    limits: Limits
    beside: dict[str, "Experiment"]
    search: Search | None
    content: dict = dataclasses.field(repr=False)

    def make_setup(
        self, targets: np.ndarray, pretrained: Pretrained | None = None
    ) -> Setup:
        """The fixed part of the run.

        Args:
            targets: Of the training images.
            pretrained: From `network.load_backbone`; None: loads it.
        """
        network = self.network.make(pretrained)
        weights = network.objective.weights(
            self.class_weights, targets, network.num_classes
        )
        return Setup(
            network=network,
            num_examples=len(targets),
            batch_size=min(self.batch_size, len(targets)),
            epochs=self.epochs,
            warmup_epochs=self.optimizer.warmup_epochs,
            schedule=self.optimizer.schedule,
            min_lr=self.optimizer.min_lr,
            head_multiplier=self.optimizer.head_multiplier,
            optimizer=self.optimizer.name,
            momentum=self.optimizer.momentum,
            class_weights=weights,
            head_start=self.optimizer.head_start,
        )

    def with_epochs(self, epochs: int) -> "Experiment":
        """A shorter one, its warm-up shortened alike: whole epochs stay whole."""
        warmup = self.optimizer.warmup_epochs * epochs
        whole = isinstance(warmup, int)
        warmup = warmup // self.epochs if whole else warmup / self.epochs
        shorter = dataclasses.replace(self.optimizer, warmup_epochs=warmup)
        return dataclasses.replace(self, epochs=epochs, optimizer=shorter)

    def with_lr(self, lr: float) -> "Experiment":
        """One with this learning rate, already scaled."""
        base_lr = lr * 256 / self.batch_size
        own = dataclasses.replace(self.optimizer, lr=lr, base_lr=base_lr)
        return dataclasses.replace(self, optimizer=own, search=None)
