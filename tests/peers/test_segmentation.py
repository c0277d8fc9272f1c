"""SETR-PUP as mmsegmentation describes it, written again in PyTorch.

Head, loss, gradients and three steps of SGD on tokens; float32, highest precision,
1e-4. Nothing of mmsegmentation is used: its config and `setr_up_head.py` in words are
in `vpt_jax/objectives/heads.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vpt_jax.objectives import heads, segmentation
from vpt_jax.training import optim
from vpt_jax.types import flatten, unflatten

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]

WIDTH, CLASSES, GRID, BATCH, SIZE = 24, 5, 3, 2, 48
PEAK, LEAST, STEPS = 0.05, 1e-4, 10


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(heads, "CHANNELS", 16)


def decoder(stages, factor):
    """One head as a list of PyTorch layers."""
    import torch
    from torch import nn

    class Grid(nn.Module):
        def forward(self, tokens):
            batch, count, width = tokens.shape
            side = int(count**0.5)
            return tokens.transpose(1, 2).reshape(batch, width, side, side)

    layers, width = [nn.LayerNorm(WIDTH, eps=1e-6), Grid()], WIDTH
    for _ in range(stages):
        layers += [nn.Conv2d(width, 16, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(16, eps=1e-5, momentum=0.1), nn.ReLU()]
        layers += [
            nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)
        ]
        width = 16
    layers += [nn.Conv2d(16, CLASSES, 1)]
    return torch.nn.Sequential(*layers)


def torch_head():
    import torch

    return torch.nn.ModuleList([decoder(4, 2), *(decoder(2, 4) for _ in range(3))])


def names(path):
    """Of a tensor of ours: the index of its head and the name in PyTorch's."""
    if path[0] == "decoder":
        number, rest = 0, path[1:]
    else:
        number, rest = 1 + path[1], path[2:]
    if rest[0] == "norm":
        return f"{number}.0.{'weight' if rest[1] == 'scale' else 'bias'}"
    if rest[0] == "classes":
        last = 2 + 4 * (4 if number == 0 else 2)
        return f"{number}.{last}.{'weight' if rest[1] == 'kernel' else 'bias'}"
    first = 2 + 4 * rest[1]
    if rest[2] == "kernel":
        return f"{number}.{first}.weight"
    known = {"scale": "weight", "bias": "bias", "mean": "running_mean"}
    return f"{number}.{first + 1}.{known.get(rest[3], 'running_var')}"


def in_our_layout(array, path):
    array = array.detach().numpy()
    if path[-1] == "kernel" and path[-2] == "classes":
        return array[..., 0, 0].T
    return array.transpose(2, 3, 1, 0) if path[-1] == "kernel" else array


def as_torch(array, path):
    import torch

    array = np.array(array)
    if path[-1] == "kernel" and path[-2] == "classes":
        array = array.T[..., None, None]
    elif path[-1] == "kernel":
        array = array.transpose(3, 2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(array))


def torch_loss(model, tapped, targets):
    """Cross-entropy at full size, ignored pixels 0 in a mean over all of them."""
    import torch
    from torch.nn import functional

    *others, last = tapped
    total = 0.0
    for weight, head, tokens in zip(
        (1.0, 0.4, 0.4, 0.4), model, (last, *others), strict=True
    ):
        logits = functional.interpolate(
            head(tokens), size=(SIZE, SIZE), mode="bilinear", align_corners=False
        )
        loss = functional.cross_entropy(
            logits, targets, ignore_index=255, reduction="none"
        )
        total = total + weight * loss.mean()
    assert torch.is_tensor(total)
    return total


def test_head_loss_gradients_and_three_steps():
    import torch

    rng = np.random.default_rng(0)
    tapped = rng.normal(size=(4, BATCH, GRID**2, WIDTH)).astype(np.float32)
    targets = rng.integers(0, CLASSES, (BATCH, SIZE, SIZE))
    targets[rng.random(targets.shape) < 0.2] = 255

    head = heads.PupHead(WIDTH, CLASSES, nnx.Rngs(0))
    graphdef, params, stats = nnx.split(head, nnx.Param, nnx.BatchStat)
    params, stats = nnx.as_pure(params), nnx.as_pure(stats)
    theirs = torch_head()
    known = dict(theirs.named_parameters())
    assert {names(p) for p in flatten(params)} == set(known)
    with torch.no_grad():
        for path, leaf in flatten(params).items():
            noise = 0.1 * rng.normal(size=leaf.shape).astype(np.float32)
            known[names(path)].copy_(as_torch(leaf + noise, path))
    own = {path: in_our_layout(known[names(path)], path) for path in flatten(params)}
    params = unflatten(params, {path: jnp.asarray(x) for path, x in own.items()})

    def loss_of(params, stats):
        model = nnx.merge(graphdef, params, stats)
        outputs = model(tuple(jnp.asarray(x) for x in tapped), train=True)
        total, size = segmentation.loss(outputs, jnp.asarray(targets), jnp.ones(BATCH))
        moved = nnx.as_pure(nnx.state(model, nnx.BatchStat))
        return total / size, moved

    schedule = optim.make_schedule(
        "poly", steps_per_epoch=STEPS, epochs=1, warmup_epochs=0, min_lr=LEAST
    )
    make = optim.make_optimizer("sgd", 0.9)
    state = make(0.0, 0.0).init(params)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=PEAK, momentum=0.9)
    seen = [torch.from_numpy(x) for x in tapped]
    labels = torch.from_numpy(targets)
    with jax.default_matmul_precision("highest"):
        for step in range(3):
            value = jax.value_and_grad(loss_of, has_aux=True)
            (loss, stats), grads = value(params, stats)
            optimizer.zero_grad()
            wanted = torch_loss(theirs.train(), seen, labels)
            wanted.backward()
            np.testing.assert_allclose(loss, wanted.item(), atol=1e-4)
            for path, gradient in flatten(grads).items():
                other = in_our_layout(known[names(path)].grad, path)
                np.testing.assert_allclose(gradient, other, atol=1e-4, err_msg=path)
            for group in optimizer.param_groups:
                left = (1 - step / STEPS) ** 0.9
                group["lr"] = (PEAK - LEAST) * left + LEAST
            optimizer.step()
            moves = make(schedule(PEAK, step), 0.0)
            updates, state = moves.update(grads, state, params)
            params = jax.tree.map(jnp.add, params, updates)
    buffers = dict(theirs.named_buffers())
    for path, leaf in flatten(params).items():
        other = in_our_layout(known[names(path)], path)
        np.testing.assert_allclose(leaf, other, atol=1e-4, err_msg=path)
    for path, leaf in flatten(stats).items():
        other = buffers[names(path)].numpy()
        np.testing.assert_allclose(leaf, other, atol=1e-4, err_msg=path)

    # At inference: the running statistics, the main head alone.
    model = nnx.merge(graphdef, params, stats)
    main = model(tuple(jnp.asarray(x) for x in tapped)).main
    with torch.no_grad():
        full = theirs.eval()[0](seen[-1]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(heads.enlarged(main, SIZE), full, atol=1e-4)


def test_parameters_of_the_real_size(monkeypatch):
    """13,143,640 with 150 classes on ViT-L/16, counted by PyTorch."""
    import torch
    from torch import nn

    def one(stages):
        widths = [1024] + [256] * (stages - 1)
        convs = [nn.Conv2d(w, 256, 3, padding=1, bias=False) for w in widths]
        norms = [nn.BatchNorm2d(256) for _ in range(stages)]
        return nn.ModuleList(
            [nn.LayerNorm(1024), *convs, *norms, nn.Conv2d(256, 150, 1)]
        )

    with torch.device("meta"):
        every = nn.ModuleList([one(4), *(one(2) for _ in range(3))])
    assert sum(p.numel() for p in every.parameters()) == 13_143_640
