"""The kernels, interpreted, on several devices; prints JSON of what was found."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.sharding import AxisType, Mesh

from vpt_jax import parallel
from vpt_jax.backbones import tpu_attention, tpu_norm
from vpt_jax.planning import hlo

T, B, N, H, K = 2, 4, 5, 2, 4


def layer(x, scale):
    """A norm, attention, and their gradients, as one trial of a step has them."""
    normal = tpu_norm.forward(x, scale, scale, 1e-6)
    heads = normal.reshape(*normal.shape[:-1], H, K)
    out, saved = tpu_attention.forward(heads, heads, 2 * heads)
    dq, dk, dv = tpu_attention.backward(saved, out)
    dy = (dq + dk + dv).reshape(x.shape)
    return out, tpu_norm.backward(x, scale, dy, 1e-6)


def main() -> None:
    pl.pallas_call = functools.partial(pl.pallas_call, interpret=True)
    mesh = Mesh(
        np.array(jax.devices()).reshape(2, 2),
        ("trial", "data"),
        axis_types=(AxisType.Auto,) * 2,
    )
    x, scale = np.random.default_rng(0).normal(size=(2, T, B, N, H * K))
    scale = scale[0, 0, 0]
    many = jax.vmap(layer, (0, None), spmd_axis_name="trial")
    run = jax.jit(parallel.traced_on(mesh, many))
    placed = jax.device_put(x, parallel.over_both(mesh))
    program = run.lower(placed, jnp.asarray(scale)).compile()
    found = program(placed, jnp.asarray(scale))
    wanted = jax.vmap(layer, (0, None))(x, scale)
    pairs = zip(map(np.asarray, found), wanted, strict=True)
    facts = {
        "gap": max(float(jnp.abs(a - b).max()) for a, b in pairs),
        "shards": [x.sharding.shard_shape(x.shape)[:2] for x in found],
        "collectives": [c.kind for c in hlo.collectives(program.as_text())],
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
