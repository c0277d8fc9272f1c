"""One training step of one trial, and the compiled programs over all trials.

    init    seed (T,)                       -> state with a leading axis T
    chunk   state, steps start to stop      -> state        (donated)
    logits  state, a batch of images        -> logits (T, B, C)

The number of steps of a chunk is an argument, not part of the program: any division of
a run into chunks executes the same instructions, and so gives the same bits.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from vpt_jax import methods, parallel
from vpt_jax.checkpoints import Pretrained
from vpt_jax.data import augment, preprocess
from vpt_jax.model import Model, first_trained_step
from vpt_jax.training import losses
from vpt_jax.training.optim import Hyper, lr_multiplier
from vpt_jax.types import Path, Tree, widened

Reads = Literal["all", "own", "shared"]
"""Inputs of all training images; (T, B, ...), each trial's own batch; or (B, ...)."""

MIN_CACHED_STEPS = 2  # embed alone is no work worth the memory of its output


class State(NamedTuple):
    """What training changes; every leaf has the leading axis T."""

    trainable: Tree
    stats: Tree
    opt_state: Tree
    alive: jax.Array  # (T,) bool: no loss or gradient has been infinite or NaN
    loss: jax.Array  # (T, epochs): sum over the images of an epoch
    correct: jax.Array  # (T, epochs): images classified correctly in passing


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that is fixed for a run, none of it an array of the backbone.

    Attributes:
        pretrained: The backbone and its weights.
        method: The way of tuning, one or several at once.
        num_classes: C.
        num_examples: Training images.
        image_size: Side in pixels that images are resized to.
        batch_size: B; the last batch of an epoch may be smaller.
        epochs, warmup_epochs: Of the cosine schedule.
        schedule: 'epoch' evaluates it once per epoch (public code), 'step' always.
        optimizer: From `optim.make_optimizer`.
        preset: Preprocessing of the images.
        class_weights: (C,), the weight of each class in the loss.
        cached: Whether the frozen first steps are run once, not in every epoch.
        scan, remat: See `Model`.
        shard: Whether each device keeps only a part of the frozen weights.
    """

    pretrained: Pretrained
    method: tuple[methods.Choice, ...]
    num_classes: int
    num_examples: int
    image_size: int
    batch_size: int
    epochs: int
    warmup_epochs: int
    schedule: str
    optimizer: Callable
    preset: preprocess.Preset
    class_weights: np.ndarray
    cached: bool = True
    scan: bool = False
    remat: bool = False
    shard: bool = False
    programs: dict = dataclasses.field(
        init=False, default_factory=dict, compare=False, repr=False
    )
    """What `_once` and `compile_chunk` have made."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches, the last one possibly smaller."""
        return -(-self.num_examples // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Of the whole run."""
        return self.epochs * self.steps_per_epoch

    def build(self, key: jax.Array, params: Tree) -> Model:
        """The tuned model with fresh tensors from `key`."""
        backbone = nnx.merge(self.pretrained.graphdef, params)
        rngs = nnx.Rngs(key)
        model = methods.build(backbone, self.num_classes, self.method, rngs)
        model.scan, model.remat = self.scan, self.remat
        return model

    def split(self, model: Model):
        """(graphdef, trainable, frozen, stats)."""
        return methods.split(model, self.method)

    @functools.cached_property
    def parts(self):
        """(graphdef, trainable, frozen, stats) with shapes; `frozen` has arrays."""
        params = self.pretrained.params
        model = self.build(jax.random.key(0), params)
        graphdef, trainable, frozen, stats = self.split(model)
        shapes = functools.partial(
            jax.eval_shape, functools.partial(jax.tree.map, widened)
        )
        return graphdef, shapes(trainable), frozen, shapes(stats)

    @functools.cached_property
    def cut(self) -> int:
        """Leading steps whose output is cached; 0 when nothing worth it is frozen.

        Or when the images themselves are different in every epoch.
        """
        if not self.cached or self.preset.augment:
            return 0
        size = self.image_size
        images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
        cut = first_trained_step(*self.parts, images)
        return cut if cut >= MIN_CACHED_STEPS else 0


def prepare(setup: Setup, raw: jax.Array) -> jax.Array:
    """Images (B, h, w, 3), uint8 or already resized, to what the backbone takes."""
    return preprocess.normalize(
        preprocess.resize_device(raw, setup.image_size), setup.preset
    )


def epoch_order(setup: Setup, seed, epoch) -> jax.Array:
    """The images of one epoch in the order of (seed, epoch), filled up with 0."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch)
    order = jax.random.permutation(key, setup.num_examples)
    fill = setup.steps_per_epoch * setup.batch_size - setup.num_examples
    return jnp.pad(order, (0, fill))


def _once(make: Callable) -> Callable:
    """A maker of programs that makes each once for a setup: chunks of trials of the
    same shapes compile nothing again."""

    @functools.wraps(make)
    def kept(setup: Setup, *arguments):
        wanted = make, *arguments
        if wanted not in setup.programs:
            setup.programs[wanted] = make(setup, *arguments)
        return setup.programs[wanted]

    return kept


def place_frozen(setup: Setup, mesh: Mesh) -> Tree:
    """The frozen weights on the devices."""
    frozen = setup.parts[2]
    where = parallel.frozen_shardings(mesh, frozen, setup.shard)
    return parallel.place(frozen, where)


@_once
def make_init(setup: Setup, mesh: Mesh):
    """Compiled `init(params, hyper) -> State`."""

    def init_one(params, hyper: Hyper) -> State:
        key = jax.random.fold_in(jax.random.key(hyper.seed), 0)
        _, trainable, _, stats = setup.split(setup.build(key, params))
        # Trained parameters are float32 also where the frozen ones are bfloat16.
        trainable = jax.tree.map(widened, trainable)
        opt_state = setup.optimizer(hyper.lr, hyper.weight_decay).init(trainable)
        curve = jnp.zeros(setup.epochs)
        return State(trainable, stats, opt_state, jnp.array(True), curve, curve)

    init = jax.vmap(init_one, in_axes=(None, 0))
    return jax.jit(init, out_shardings=parallel.over_trials(mesh))


def initialise(setup: Setup, state: State, mesh: Mesh, batches: Callable) -> State:
    """Give the methods that start from the training images their turn, trial by trial.

    Args:
        setup, state, mesh: What is trained, and where.
        batches: Makes an iterator over (normalised images, labels).
    """
    hooks = [c for c in setup.method if hasattr(c.module, "initialise")]
    if not hooks:
        return state
    graphdef, _, frozen, _ = setup.parts
    trials, groups = [], parallel.fetch(state[:2])
    for t in range(len(state.alive)):
        trainable, stats = jax.tree.map(lambda x, t=t: jnp.asarray(x[t]), groups)
        model = nnx.merge(graphdef, trainable, frozen, stats)
        for choice in hooks:
            choice.module.initialise(model, choice.config, batches())
        trials.append(setup.split(model)[1])
    trainable = jax.tree.map(lambda *leaves: np.stack(leaves), *trials)
    where = parallel.over_trials(mesh)
    return state._replace(trainable=parallel.place(trainable, where))


@_once
def make_chunk(setup: Setup, mesh: Mesh, reads: Reads = "all"):
    """`chunk(state, frozen, inputs, labels, hyper, start, stop)`, to be compiled.

    `inputs` are raw images, or the cached output of the frozen prefix: of all training
    images, or only the batches that the one step from `start` reads.
    """
    graphdef, _, _, _ = setup.parts
    spe, batch_size = setup.steps_per_epoch, setup.batch_size

    def loss_fn(trainable, stats, frozen, x, labels, mask, key):
        model = merge(setup, mesh, graphdef, trainable, frozen, stats)
        logits = model.suffix(x, setup.cut, key=key, train=True, mask=mask)
        _, _, _, stats = setup.split(model)
        loss = losses.cross_entropy(logits, labels, mask, setup.class_weights)
        correct = jnp.sum((logits.argmax(-1) == labels) * mask)
        return loss, (stats, correct)

    def step_one(state: State, order, hyper: Hyper, frozen, inputs, labels, step):
        epoch = step // spe
        start = (step % spe) * batch_size
        index = jax.lax.dynamic_slice(order, (start,), (batch_size,))
        mask = (start + jnp.arange(batch_size) < setup.num_examples).astype(jnp.float32)
        if reads != "all":
            x = inputs
        elif isinstance(inputs, augment.Ragged):
            drawn = augment.draw(hyper.seed, epoch, index)
            x = augment.cut_device(inputs, index, drawn, setup.image_size)
        else:
            x = inputs[index]
        x = jax.lax.with_sharding_constraint(x, parallel.over_batch(mesh))
        if setup.cut == 0:
            x = prepare(setup, x)
        key = jax.random.fold_in(
            jax.random.fold_in(jax.random.key(hyper.seed), 2), step
        )
        (loss, (stats, correct)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.trainable, state.stats, frozen, x, labels[index], mask, key
        )
        when = step / spe if setup.schedule == "step" else epoch
        lr = hyper.lr * lr_multiplier(
            when, epochs=setup.epochs, warmup_epochs=setup.warmup_epochs
        )
        optimizer = setup.optimizer(lr, hyper.weight_decay)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(
                grads, state.opt_state, state.trainable
            )
        trainable = optax.apply_updates(state.trainable, updates)
        # They can overflow before the loss does: what is exported stays finite.
        size = optax.tree.norm((grads, trainable))
        alive = state.alive & jnp.isfinite(loss) & jnp.isfinite(size)
        moved = trainable, stats, opt_state
        kept = jax.tree.map(functools.partial(jnp.where, alive), moved, state[:3])
        return State(
            *kept,
            alive,
            state.loss.at[epoch].add(loss * jnp.sum(mask)),
            state.correct.at[epoch].add(correct),
        )

    steps = jax.vmap(
        step_one,
        in_axes=(0, 0, 0, None, 0 if reads == "own" else None, None, None),
        spmd_axis_name="trial",
    )

    def chunk(state, frozen, inputs, labels, hyper, start, stop):
        def orders_of(step):
            order = functools.partial(epoch_order, setup, epoch=step // spe)
            if reads == "shared":
                return jnp.tile(order(hyper.seed[0]), (len(hyper.seed), 1))
            return jax.vmap(order)(hyper.seed)

        def body(step, carry):
            state, orders = carry
            orders = jax.lax.cond(
                step % spe == 0, lambda: orders_of(step), lambda: orders
            )
            weights = frozen
            if setup.shard:  # or XLA gathers all blocks once, before the loop
                weights, step = jax.lax.optimization_barrier((frozen, step))
            return steps(state, orders, hyper, weights, inputs, labels, step), orders

        return jax.lax.fori_loop(start, stop, body, (state, orders_of(start)))[0]

    chunk = parallel.traced_on(mesh, chunk)
    return jax.jit(chunk, donate_argnums=0, compiler_options=_compiler_options())


def compile_chunk(setup: Setup, mesh: Mesh, reads: Reads, *arguments):
    """`make_chunk` for arguments, or shapes with shardings, of what will be given."""
    shapes = tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(arguments))
    wanted = compile_chunk, mesh, reads, shapes
    if wanted not in setup.programs:
        chunk = make_chunk(setup, mesh, reads).lower(*arguments)
        setup.programs[wanted] = chunk.compile()
    return setup.programs[wanted]


def merge(setup: Setup, mesh: Mesh, graphdef, *groups) -> Model:
    """The split model as one, for a program that runs on `mesh`."""
    model = nnx.merge(graphdef, *groups)
    if setup.shard:
        model.gather = parallel.replicated(mesh)
    return model


@_once
def make_prefix(setup: Setup, mesh: Mesh):
    """Compiled `prefix(frozen, raw) -> activations` of the steps before `cut`.

    The images are spread over all devices, whatever the axis; each gets the result.
    """
    mesh = parallel.flat(mesh)
    graphdef, trainable, _, stats = setup.parts
    zeros = functools.partial(jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype))

    def prefix(frozen, raw):
        groups = zeros(trainable), frozen, zeros(stats)
        model = merge(setup, mesh, graphdef, *groups)
        spread = parallel.over_batch(mesh)
        x = jax.lax.with_sharding_constraint(prepare(setup, raw), spread)
        return model.prefix(x, setup.cut)

    prefix = parallel.traced_on(mesh, prefix)
    return jax.jit(prefix, out_shardings=parallel.replicated(mesh))


@_once
def make_logits(setup: Setup, mesh: Mesh):
    """Compiled `logits(trainable, stats, frozen, raw) -> (T, B, C)`, inference.

    Trials and images are spread over the devices as in training; each gets the result.
    """
    graphdef, _, _, _ = setup.parts

    def logits_one(trainable, stats, frozen, x):
        return merge(setup, mesh, graphdef, trainable, frozen, stats)(x)

    def logits(trainable, stats, frozen, raw):
        x = jax.lax.with_sharding_constraint(
            prepare(setup, raw), parallel.over_batch(mesh)
        )
        return jax.vmap(logits_one, in_axes=(0, 0, None, None), spmd_axis_name="trial")(
            trainable, stats, frozen, x
        )

    logits = parallel.traced_on(mesh, logits)
    return jax.jit(logits, out_shardings=parallel.replicated(mesh))


def decays(path: Path) -> bool:
    """SGD in the public code decays all but the head's bias (`optimizer.py:60`)."""
    return path not in (("head", "bias"), ("head", "out", "bias"))


def decays_kernels(path: Path) -> bool:
    """AdamW: no decay on biases and norms, as the public code meant (`:39-45`)."""
    return path[-1] not in ("bias", "scale")


def decays_but_biases(path: Path) -> bool:
    """AdamW as the public code does it: norm weights decay, biases do not."""
    return path[-1] != "bias"


DECAYS = {
    "sgd": decays,
    "adamw": decays_kernels,
    "adamw_public": decays_but_biases,
}


def _compiler_options() -> dict[str, str]:
    """On CPU, order the instructions for memory: the default order for concurrency
    needs 30 % more for a ViT-B/16 step and is not faster."""
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
