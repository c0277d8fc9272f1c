"""The compiled programs over all trials.

    init    seed (T,)                       -> state with a leading axis T
    prefix  a batch of images               -> what the frozen first pieces give
    chunk   state, steps start to stop      -> state        (donated)
    outputs state, a batch of images        -> what the head gives, (T, B, ...)

The number of steps of a chunk is an argument, not part of the program: any division of
a run into chunks executes the same instructions, and so gives the same bits. What is
made is kept with the `Setup` or `Network` that it was made for.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vpt_jax import parallel
from vpt_jax.data import augment
from vpt_jax.network import Network
from vpt_jax.training import head_start
from vpt_jax.training.optim import Hyper
from vpt_jax.training.setup import Setup
from vpt_jax.training.step import Batch, State, epoch_order, merged, train_step
from vpt_jax.types import Tree, widened

Feed = Literal["all", "own", "shared"]
"""What a chunk is fed: the inputs of all training images; (T, B, ...), each trial's own
batch of one step; or (B, ...), one batch that all trials share."""


def once(make: Callable) -> Callable:
    """A maker of programs that makes each once for its first argument: trials of the
    same shapes that come later compile nothing again."""

    @functools.wraps(make)
    def kept(owner: Setup | Network, *arguments):
        wanted = make, *arguments
        if wanted not in owner.programs:
            owner.programs[wanted] = make(owner, *arguments)
        return owner.programs[wanted]

    return kept


def place_frozen(network: Network, mesh: Mesh) -> Tree:
    """The frozen weights on the devices."""
    frozen = network.parts[2]
    where = parallel.frozen_shardings(mesh, frozen, network.shard)
    return parallel.place(frozen, where)


@once
def make_init(setup: Setup, mesh: Mesh):
    """Compiled `init(params, hyper) -> State`."""
    network = setup.network

    def init_one(params, hyper: Hyper) -> State:
        key = jax.random.fold_in(jax.random.key(hyper.seed), 0)
        _, trainable, _, stats = network.split(network.build(key, params))
        # Trained parameters are float32 also where the frozen ones are bfloat16.
        trainable = jax.tree.map(widened, trainable)
        opt_state = setup.make_optimizer(hyper.lr, hyper.weight_decay).init(trainable)
        loss = jnp.zeros(setup.epochs)
        shape = network.objective.counted(network.num_classes)
        counted = jnp.zeros((setup.epochs, *shape))
        return State(trainable, stats, opt_state, jnp.array(True), loss, counted)

    init = jax.vmap(init_one, in_axes=(None, 0))
    return jax.jit(init, out_shardings=parallel.over_trials(mesh))


def initialise(setup: Setup, state: State, mesh: Mesh, batches: Callable) -> State:
    """Give what starts from the training images its turn, trial by trial: methods,
    and a head that is fitted.

    Args:
        setup, state, mesh: What is trained, and where.
        batches: Makes an iterator over (normalised images, labels).
    """
    network = setup.network
    hooks = [c for c in network.method if hasattr(c.module, "initialise")]
    fitted = setup.head_start == head_start.FITTED
    if not (hooks or fitted):
        return state
    graphdef, _, frozen, _ = network.parts
    trials, groups = [], parallel.fetch(state[:2])
    for t in range(len(state.alive)):
        trainable, stats = jax.tree.map(lambda x, t=t: jnp.asarray(x[t]), groups)
        model = nnx.merge(graphdef, trainable, frozen, stats)
        for choice in hooks:
            choice.module.initialise(model, choice.config, batches())
        if fitted:
            judged = network.objective, setup.class_weights
            head_start.fit(model, batches(), *judged)
        trials.append(network.split(model)[1::2])  # untrained prompts are statistics
    groups = jax.tree.map(lambda *leaves: np.stack(leaves), *trials)
    trainable, stats = parallel.place(groups, parallel.over_trials(mesh))
    return state._replace(trainable=trainable, stats=stats)


@once
def make_chunk(setup: Setup, mesh: Mesh, feed: Feed = "all"):
    """`chunk(state, frozen, inputs, targets, hyper, start, stop)`, to be compiled.

    `inputs` are raw images, or the cached output of the frozen prefix: of all training
    images, or only the batches that the one step from `start` reads.
    """
    spe = setup.steps_per_epoch

    def step_one(state, order, hyper, frozen, inputs, targets, n):
        batch = _batch(setup, mesh, feed, order, hyper.seed, inputs, targets, n)
        return train_step(setup, mesh, state, hyper, frozen, batch, n)

    steps = _over_trials(setup, mesh, feed, step_one)

    def chunk(state, frozen, inputs, targets, hyper, start, stop):
        def orders_of(n):
            order = functools.partial(epoch_order, setup, epoch=n // spe)
            if feed == "shared":
                return jnp.tile(order(hyper.seed[0]), (len(hyper.seed), 1))
            return jax.vmap(order)(hyper.seed)

        def body(n, carry):
            state, orders = carry
            orders = jax.lax.cond(n % spe == 0, lambda: orders_of(n), lambda: orders)
            weights = frozen
            if setup.network.shard:  # or XLA gathers all blocks once, before the loop
                weights, n = jax.lax.optimization_barrier((frozen, n))
            return steps(state, orders, hyper, weights, inputs, targets, n), orders

        return jax.lax.fori_loop(start, stop, body, (state, orders_of(start)))[0]

    chunk = parallel.traced_on(mesh, chunk)
    return jax.jit(chunk, donate_argnums=0, compiler_options=compiler_options(mesh))


def _over_trials(setup: Setup, mesh: Mesh, feed: Feed, step: Callable) -> Callable:
    """`step` of all trials: at once, so that products with the same frozen weights are
    one. Where nothing is frozen, one CPU is quicker when it takes them in turn."""
    if mesh.size > 1 or not _on_cpu(mesh) or jax.tree.leaves(setup.network.parts[2]):
        own = 0 if feed == "own" else None
        axes = 0, 0, 0, None, own, None, None
        return jax.vmap(step, in_axes=axes, spmd_axis_name="trial")

    def in_turn(state, orders, hyper, frozen, inputs, targets, n):
        def one(of_trial):
            *first, x = of_trial
            x = inputs if x is None else x
            return step(*first, frozen, x, targets, n)

        own = inputs if feed == "own" else None
        return jax.lax.map(one, (state, orders, hyper, own))

    return in_turn


def _batch(setup: Setup, mesh: Mesh, feed: Feed, order, seed, inputs, targets, n):
    """The batch of one trial in step `n`, gathered from what the chunk was fed."""
    epoch, position = n // setup.steps_per_epoch, n % setup.steps_per_epoch
    start, size = position * setup.batch_size, setup.batch_size
    index = jax.lax.dynamic_slice(order, (start,), (size,))
    mask = (start + jnp.arange(size) < setup.num_examples).astype(jnp.float32)
    if feed != "all":
        x = inputs
    elif isinstance(inputs, augment.Ragged):
        drawn = augment.draw(seed, epoch, index)
        x = augment.cut_device(inputs, index, drawn, setup.network.image_size)
    else:
        x = inputs[index]
    x = jax.lax.with_sharding_constraint(x, parallel.over_batch(mesh))
    if setup.network.objective.DENSE:
        x, own = x[..., :3], x[..., 3].astype(jnp.int32)
    else:
        own = targets[index]
    x = x if setup.cut else setup.network.normalised(x)
    return Batch(x, own, mask)


def compile_chunk(setup: Setup, mesh: Mesh, feed: Feed, *arguments):
    """`make_chunk` for arguments, or shapes with shardings, of what will be given."""
    shapes = tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(arguments))
    wanted = compile_chunk, mesh, feed, shapes
    if wanted not in setup.programs:
        chunk = make_chunk(setup, mesh, feed).lower(*arguments)
        setup.programs[wanted] = chunk.compile()
    return setup.programs[wanted]


@once
def make_prefix(network: Network, cut: int, mesh: Mesh):
    """Compiled `prefix(frozen, raw) -> activations` of the pieces before `cut`.

    The images are spread over all devices, whatever the axis; each gets the result.
    """
    mesh = parallel.flat(mesh)
    _, trainable, _, stats = network.parts
    zeros = functools.partial(jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype))

    def prefix(frozen, raw):
        model = merged(network, mesh, zeros(trainable), frozen, zeros(stats))
        spread = parallel.over_batch(mesh)
        x = jax.lax.with_sharding_constraint(network.normalised(raw), spread)
        return model.prefix(x, cut)

    prefix = parallel.traced_on(mesh, prefix)
    return jax.jit(prefix, out_shardings=parallel.replicated(mesh))


@once
def make_outputs(network: Network, mesh: Mesh):
    """Compiled `outputs(trainable, stats, frozen, raw) -> (T, B, ...)`, inference.

    Trials and images are spread over the devices as in training; each gets the result.
    """

    def outputs_one(trainable, stats, frozen, x):
        return merged(network, mesh, trainable, frozen, stats)(x)

    def outputs(trainable, stats, frozen, raw):
        over_batch = parallel.over_batch(mesh)
        x = jax.lax.with_sharding_constraint(network.normalised(raw), over_batch)
        of_trials = jax.vmap(
            outputs_one, in_axes=(0, 0, None, None), spmd_axis_name="trial"
        )
        return of_trials(trainable, stats, frozen, x)

    outputs = parallel.traced_on(mesh, outputs)
    return jax.jit(outputs, out_shardings=parallel.replicated(mesh))


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """On CPU, order the instructions for memory: the default order for concurrency
    needs 30 % more for a ViT-B/16 step and is not faster."""
    if not _on_cpu(mesh):
        return {}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"
