"""What single methods do beyond the conformance table, and how they are named."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from building import build_model
from flax import nnx
from safetensors.numpy import save_file
from training import tiny

from vpt_jax import UserError, export, methods, parallel
from vpt_jax.backbones.vit import ViT, ViTConfig
from vpt_jax.methods import sidetune
from vpt_jax.model import Context
from vpt_jax.training import programs
from vpt_jax.types import count, flatten, path_name

SMALL = ViTConfig(patch=4, width=8, depth=3, heads=2, mlp_dim=16, image_size=8)
LENGTHS = {"length": 2}


def make(name, options, config=SMALL):
    chosen = methods.choose(name, options)
    backbone = ViT(config, rngs=nnx.Rngs(0))
    model = build_model(backbone, 5, chosen)
    return model, methods.split(model, chosen)


def context(model, key=None):
    return Context(model.backbone, key, key is not None)


# ---- prompts


def test_a_deeper_prompt_replaces_the_one_before():
    model, _ = make("prompt", LENGTHS | {"dropout": 0.0})
    edit = model.edits["prompt"]
    tokens = model.backbone.embed(jnp.ones((2, 8, 8, 3)))
    first = edit.before_block(0, tokens, context(model))
    second = edit.before_block(1, first, context(model))
    assert first.shape == second.shape == (2, 5 + 2, 8)
    for layer, sequence in enumerate((first, second)):
        np.testing.assert_array_equal(sequence[:, :1], tokens[:, :1])
        np.testing.assert_array_equal(sequence[1, 1:3], edit.prompts.tokens[layer][...])
        np.testing.assert_array_equal(sequence[:, 3:], tokens[:, 1:])


def test_prompt_dropout_has_one_mask_per_image_and_is_off_at_inference():
    model, _ = make("prompt", {"length": 50, "dropout": 0.5})
    edit = model.edits["prompt"]
    tokens = model.backbone.embed(jnp.ones((2, 8, 8, 3)))
    train = context(model, jax.random.key(3))
    prompts = edit.before_block(0, tokens, train)[:, 1:51]
    dropped = prompts == 0
    assert 0.3 < dropped.mean() < 0.7
    assert not jnp.array_equal(dropped[0], dropped[1])
    kept = jnp.where(dropped, 0, 2 * edit.prompts.tokens[0][...])
    np.testing.assert_allclose(prompts, kept, atol=1e-6)
    assert jnp.array_equal(model(jnp.ones((2, 8, 8, 3))), model(jnp.ones((2, 8, 8, 3))))


def test_prompts_start_within_the_published_bound():
    model, _ = make("prompt", {"length": 500})
    bound = (6 / (3 * 4**2 + 8)) ** 0.5
    values = np.stack([x[...] for x in model.edits["prompt"].prompts.tokens])
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.99 * bound


def test_full_turns_on_dropout_of_the_backbone():
    model, _ = make("full", {"backbone_dropout": 0.5})
    images = jnp.ones((1, 8, 8, 3))
    a, b = (model(images, key=jax.random.key(n), train=True) for n in (0, 1))
    assert not jnp.allclose(a, b)
    assert jnp.array_equal(model(images), model(images))


def test_the_last_blocks_insert_prompts_or_overwrite_patches():
    tokens = jnp.ones((1, 5, 8))
    for overwrite, length in ((False, 7), (True, 5)):
        options = LENGTHS | {"layers": -2, "overwrite": overwrite}
        model, _ = make("prompt", options)
        edit, none = model.edits["prompt"], context(model)
        assert edit.before_block(0, tokens, none) is tokens
        first = edit.before_block(1, tokens, none)
        assert first.shape[1] == edit.before_block(2, first, none).shape[1] == length


def test_dropped_prompts_leave_the_sequence():
    model, _ = make("prompt", LENGTHS | {"layers": 1, "keep": False})
    edit, none = model.edits["prompt"], context(model)
    tokens = jax.random.normal(jax.random.key(0), (1, 5, 8))
    prompted = edit.before_block(0, tokens, none)
    assert prompted.shape[1] == 7
    np.testing.assert_array_equal(edit.before_block(1, prompted, none), tokens)


def cls_after_blocks(images):
    """(n, L, D), written out plainly."""
    plain = ViT(SMALL, rngs=nnx.Rngs(0))
    x, seen = plain.embed(images), []
    for block in plain.blocks:
        x = block(x)
        seen.append(x[:, 0])
    return jnp.stack(seen, axis=1)


@pytest.mark.parametrize("init", ["cls", "cls_layers", "prototypes"])
def test_prompts_start_from_the_training_images(init):
    length = 5 if init == "prototypes" else 2
    model, _ = make("prompt", {"length": length, "init": init})
    [choice] = methods.choose("prompt", {"length": length, "init": init})
    images = jax.random.normal(jax.random.key(0), (6, 8, 8, 3))
    labels = np.array([0, 0, 1, 2, 3, 3])  # class 4 has no image
    batches = [(images[:4], labels[:4]), (images[jnp.array([4, 5, 0])], labels[4:])]
    choice.module.initialise(model, choice.config, batches)
    found = np.stack([x[...] for x in model.edits["prompt"].prompts.tokens])
    seen = np.asarray(cls_after_blocks(images))
    if init == "cls_layers":
        wanted = seen[:2].transpose(1, 0, 2)
    elif init == "cls":
        wanted = np.stack([seen[:2, -1]] * 3)
    else:
        last = seen[:, -1]
        classes = [last[:2], last[2:3], last[3:4], last[4:], last]
        wanted = np.stack([np.stack([x.mean(axis=0) for x in classes])] * 3)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_mean_of_each_pool():
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    for pool, tokens in (
        ("image", slice(3, None)),
        ("prompt", slice(1, 3)),
        ("image+prompt", slice(1, None)),
    ):
        model, _ = make("vpt_shallow", LENGTHS | {"pool": pool})
        x = model.backbone.embed(images)
        x = model.edits["prompt"].before_block(0, x, context(model))
        for block in model.backbone.blocks:
            x = block(x)
        features = model.backbone.norm(x)[:, tokens].mean(axis=1)
        np.testing.assert_allclose(model(images), model.head(features), atol=1e-5)


@pytest.mark.parametrize(
    ("share", "params", "in_a_layer", "in_all_layers"),
    [
        ("none", 3 * 2 * 8, False, False),
        ("inter", 2 * 8, False, True),
        ("intra", 3 * 8, True, False),
        ("all", 8, True, True),
    ],
)
def test_shared_prompts(share, params, in_a_layer, in_all_layers):
    """Figure 12 of the paper: between positions, between layers, or both."""
    model, (_, trainable, *_) = make("prompt", LENGTHS | {"share": share})
    assert count(trainable["edits"]) == params
    edit, x, seen = model.edits["prompt"], jnp.ones((1, 5, 8)), []
    for layer in range(3):
        x = edit.before_block(layer, x, context(model))
        seen.append(x[0, 1:3])
    seen = np.stack(seen)
    assert seen.shape == (3, 2, 8)
    assert np.array_equal(seen[:, 0], seen[:, 1]) == in_a_layer
    assert np.array_equal(seen[0], seen[1]) == in_all_layers


def test_one_stored_token_is_projected_and_dropped_as_many():
    options = {"length": 50, "share": "all", "project": 4, "dropout": 0.5}
    model, (_, trainable, *_) = make("prompt", options)
    assert count(trainable["edits"]["prompt"]["prompts"]["tokens"]) == 4
    tokens, train = jnp.ones((1, 5, 8)), context(model, jax.random.key(3))
    prompts = model.edits["prompt"].before_block(0, tokens, train)[0, 1:51]
    assert len({bytes(np.asarray(row)) for row in prompts == 0}) > 1


def test_untrained_prompts_are_drawn_for_each_seed_and_kept():
    """Figure 11 of the paper: a longer sequence without learning."""
    setup = tiny.make_setup("prompt", {"length": 2, "trained": False})
    _, trainable, frozen, stats = setup.network.parts
    assert set(trainable) == {"head"} and set(stats["edits"]) == {"prompt"}
    assert "edits" not in frozen
    state = tiny.run(setup, tiny.make_hyper([0.1] * 2, [1e-2] * 2, [3, 4]), [9])
    key = jax.random.fold_in(jax.random.key(jnp.uint32(4)), 0)
    network = setup.network
    _, head, _, drawn = network.split(network.build(key, network.pretrained.params))
    second = jax.tree.map(lambda x: x[1], state)
    jax.tree.map(np.testing.assert_array_equal, second.stats, drawn)
    first = flatten(state.stats)[("edits", "prompt", "prompts", "tokens", 0)]
    assert not np.array_equal(first[0], first[1])
    moved = second.trainable["head"]["kernel"]
    assert not np.array_equal(moved, head["head"]["kernel"])


def test_untrained_prompts_travel_with_an_export(tmp_path):
    setup = tiny.make_setup("prompt", {"length": 2, "trained": False})
    state = tiny.run(setup, tiny.make_hyper([0.1], [1e-2], [3]), [9])
    trainable, stats = jax.tree.map(lambda x: x[0], (state.trainable, state.stats))
    about = {"config": {"backbone": {"name": "tiny"}}}
    export.write(tmp_path, setup.network, trainable, stats, about, False)
    again = export.read_tensors(tmp_path, setup.network, {})
    jax.tree.map(np.testing.assert_array_equal, again, (trainable, stats))


def test_untrained_prompts_can_come_from_images():
    """Figure 13's fixed variants."""
    options = {"length": 2, "trained": False, "init": "cls"}
    setup = tiny.make_setup("prompt", options)
    mesh = parallel.make_mesh(1, setup.batch_size)
    hyper = tiny.make_hyper([0.1], [0.0], [3])
    before = programs.make_init(setup, mesh)(setup.network.pretrained.params, hyper)
    images, labels = tiny.make_data()
    batches = lambda: [(setup.network.normalised(images), np.asarray(labels))]  # noqa: E731
    after = programs.initialise(setup, before, mesh, batches)
    tokens = ("edits", "prompt", "prompts", "tokens", 0)
    a, b = (np.asarray(flatten(state.stats)[tokens]) for state in (before, after))
    assert a.shape == b.shape == (1, 2, 8) and not np.allclose(a, b)


def test_fourier_prompts_are_the_real_part_of_a_transform():
    model, _ = make("vfpt", {"length": 4, "fourier": 0.5, "dropout": 0.0})
    edit = model.edits["prompt"]
    stored = edit.prompts.tokens[0][...]
    found = edit.prompts(stored, 1, jnp.float32, context(model))[0]
    wanted = np.concatenate([np.fft.fft2(stored[:2]).real, stored[2:]])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_closed_gate_keeps_the_prompts_and_an_open_one_lets_them_change():
    x = jax.random.normal(jax.random.key(0), (1, 7, 8))
    for gate, kept in ((50.0, True), (-50.0, False)):
        model, _ = make("gated", LENGTHS | {"gate_init": gate})
        block = model.backbone.blocks[0]
        out = block(x)
        inner = block.block(x)
        np.testing.assert_allclose(out[:, 1:3], (x if kept else inner)[:, 1:3])
        np.testing.assert_allclose(out[:, 3:], inner[:, 3:])


# ---- the others


def test_a_dead_adapter_trains_one_bias_only():
    model, (graphdef, trainable, frozen, stats) = make(
        "adapter-4", {"dead_start": True}
    )
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))

    def total(trainable):
        return nnx.merge(graphdef, trainable, frozen, stats)(images)[:, 0].sum()

    grads = flatten(jax.grad(total)(trainable))
    moving = {path_name(p) for p, g in grads.items() if "adapter" in p and g.any()}
    assert moving == {f"backbone.blocks.{i}.mlp.adapter.up.bias" for i in range(3)}


@pytest.mark.parametrize("name", ["lora", "ssf", "bias", "lora+layernorm"])
def test_merged_backbones_give_the_same_logits(name):
    model, (graphdef, trainable, frozen, stats) = make(name, {})
    noise = lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape)  # noqa: E731
    trainable = jax.tree.map(noise, trainable)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    tuned = nnx.merge(graphdef, trainable, frozen, stats)
    wanted = tuned(images)
    merged = export.merged_backbone(tuned)
    plain = ViT(SMALL, rngs=nnx.Rngs(5))
    nnx.update(plain, nnx.state(merged))  # the very tree of a plain ViT
    x = plain.embed(images)
    for block in plain.blocks:
        x = block(x)
    features = plain.pool(x[:, plain.reads])
    np.testing.assert_allclose(tuned.head(features), wanted, rtol=0, atol=1e-5)


def test_side_weights_are_read_and_checked(tmp_path):
    big = dataclasses.replace(SMALL, patch=32, image_size=64)
    path = tmp_path / "alexnet.safetensors"
    config = sidetune.SidetuneConfig(side_weights=str(path))
    model, _ = make("sidetune", {"side_weights": str(path)}, big)
    rng = np.random.default_rng(0)
    tensors = {}
    for n, (i, o, size, *_) in sidetune.LAYERS.items():
        shape = (o, i, size, size)
        tensors[f"features.{n}.weight"] = rng.normal(size=shape).astype(np.float32)
        tensors[f"features.{n}.bias"] = rng.normal(size=o).astype(np.float32)
    save_file(tensors, path)
    sidetune.initialise(model, config, [])
    kernel = model.backbone.side.features["3"].kernel[...]
    np.testing.assert_array_equal(
        kernel[1, 2, 3, 4], tensors["features.3.weight"][4, 3, 1, 2]
    )

    save_file(tensors | {"features.3.bias": np.zeros(7, np.float32)}, path)
    with pytest.raises(UserError, match="features.3.bias has shape"):
        sidetune.initialise(model, config, [])
    del tensors["features.8.bias"]
    save_file(tensors, path)
    with pytest.raises(UserError, match="has no features.8.bias"):
        sidetune.initialise(model, config, [])
    path.write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        sidetune.initialise(model, config, [])


def test_side_features_are_averaged_as_torch_does():
    # 7 to 3 columns: torch averages 0-2, 2-4, 4-6.
    found = sidetune._averaging(7, 3) @ np.arange(7)
    np.testing.assert_allclose(found, [1, 3, 5])


# ---- names, options, errors


def test_an_answer_that_is_no_group_is_refused(monkeypatch):
    from vpt_jax.methods import linear

    model, _ = make("linear", {})
    monkeypatch.setattr(linear, "group", lambda *_: "train")
    with pytest.raises(ValueError, match="'train' for backbone"):
        methods.split(model, methods.choose("linear", {}))


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("vtp", {}, "unknown method 'vtp'; known: vpt_deep"),
        ("linear-2", {}, "unknown method 'linear-2'"),
        ("prompt+vpt_deep", {}, "names 'prompt' twice"),
        ("prompt", {"lenght": 3}, "no option 'lenght'; its options: length, deep"),
        ("linear", {"length": 3}, "no option 'length'; its options: none"),
        ("prompt", {"length": 0}, "method.length 0"),
        ("prompt", {"dropout": 1.0}, "method.dropout 1.0"),
        ("prompt", {"project": -1}, "method.project -1"),
        ("prompt", {"init": "ones"}, "method.init 'ones' is unknown; known: xavier"),
        ("prompt", {"pool": "max"}, "method.pool 'max' is unknown"),
        ("prompt", {"share": "both"}, "method.share 'both' is unknown; known: none"),
        ("prompt", {"share": "all", "init": "cls"}, "one token; .* method.init"),
        ("prompt", {"deep": False, "layers": 2}, "method.layers needs method.deep"),
        ("prompt", {"overwrite": True}, "method.overwrite needs method.layers=-n"),
        ("prompt", {"init": "cls", "project": 4}, "it needs method.project=0"),
        ("prompt", {"layers": 1, "keep": False, "pool": "prompt"}, "keep=False drops"),
        ("prompt", {"layers": 4}, "method.layers 4: the backbone has 3 blocks"),
        ("prompt", {"layers": -4}, "method.layers -4: the backbone has 3 blocks"),
        ("prompt+vfpt", {}, "change the network in the same place"),
        ("prompt_pixel", {"pixels": "green"}, "method.pixels 'green' is unknown"),
        ("prompt_pad", {"padding": 0}, "method.padding 0"),
        ("prompt_below", {"length": 0}, "method.length 0"),
        ("partial-0", {}, "method.blocks 0"),
        ("partial-4", {}, "method.blocks 4: the backbone has 3 blocks"),
        ("mlp-1", {}, "one layer is the method linear"),
        ("adapter-3", {}, "method.reduction 3 does not divide the width 8"),
        ("lora-0", {}, "method.rank 0"),
        ("lora", {"targets": "query,qeury"}, "method.targets 'qeury' is unknown"),
        ("ssf+lora", {}, "name lora before methods that wrap"),
        ("gated+adapter", {}, "a backbone whose blocks have an MLP; Gated has none"),
        ("adaptformer", {"bottleneck": 0}, "method.bottleneck 0"),
        ("vfpt", {"fourier": 0.0}, "method.fourier 0.0"),
        ("sidetune", {}, "at least 63 px for AlexNet, not 8"),
        ("prompt+sidetune", {}, "sidetune cannot be combined with prompts"),
    ],
)
def test_bad_choices_are_one_clear_line(name, options, message):
    with pytest.raises(UserError, match=message):
        make(name, options)


def test_names():
    deep = {"deep": True}
    assert methods.parse("vpt-deep") == (("prompt", deep),)
    assert methods.parse("bitfit+cls-reinit") == (
        ("bias", {}),
        ("cls", {"reinit": True}),
    )
    assert methods.parse("mlp-5+lora_4") == (
        ("mlp", {"mlp_layers": 5}),
        ("lora", {"rank": 4}),
    )


@pytest.mark.parametrize(
    ("name", "options", "backbone", "label"),
    [
        ("prompt", {"deep": True}, "vit_b16", "vpt-deep"),
        ("prompt+bias", {"deep": False}, "vit_b16", "vpt-shallow+bias"),
        ("mlp", {"mlp_layers": 5}, "vit_b16", "mlp-5"),
        ("lora+layernorm", {"rank": 4}, "vit_b16", "lora-4+layernorm"),
        ("prompt_pad", {}, "vit_b16", "prompt_pad"),
        ("prompt_pad", {}, "resnet50", "vpt"),
        ("prompt_pad", {}, "convnext_b", "vpt"),
    ],
)
def test_labels(name, options, backbone, label):
    assert methods.label(name, options, backbone) == label


def test_an_option_of_two_methods_goes_to_both():
    both = methods.choose("vpt_deep+mlp-2", {"dropout": 0.3})
    assert [choice.config.dropout for choice in both] == [0.3, 0.3]
    names = "+".join(choice.name for choice in both)
    assert methods.choose(names, methods.options_of(both)) == both


def test_a_whole_number_is_a_fraction_where_one_is_asked_for():
    """As a sweep's 'dropout=0,0.1' gives it."""
    for name, option in (("prompt", "dropout"), ("full", "drop_path")):
        [choice] = methods.choose(name, {option: 0})
        assert type(getattr(choice.config, option)) is float


def test_options_of_one_name_have_one_meaning():
    """Else the flat list of options could not hold two methods at once."""
    seen = {}
    for recipe in methods.METHODS.values():
        assert recipe.config.__dataclass_params__.frozen
        for field in dataclasses.fields(recipe.config):
            assert seen.setdefault(field.name, field.default) == field.default
