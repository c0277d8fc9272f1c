"""Parameters of every backbone without its old task's head, as published.

From the releases' own model definitions (timm for what has no other), classifier and
projection left out; BatchNorm statistics are no parameters.
"""

import pytest
from flax import nnx

from vpt_jax import UserError, backbones
from vpt_jax.checkpoints import zoo
from vpt_jax.types import count

COUNTS = {
    "vit_nano": 691_488,
    "vit_ti16": 5_524_416,
    "vit_s16": 21_665_664,
    "vit_b8": 85_807_872,
    "vit_b16": 85_798_656,
    "vit_b32": 87_455_232,
    "vit_l16": 303_301_632,
    "vit_l32": 305_510_400,
    "vit_h14": 630_764_800,
    "vit_b8_augreg": 85_807_872,
    "vit_b16_augreg": 85_798_656,
    "vit_b32_augreg": 87_455_232,
    "vit_l16_augreg": 303_301_632,
    "dino_s16": 21_665_664,
    "dino_b16": 85_798_656,
    "deit_ti16": 5_524_416,
    "deit_s16": 21_665_664,
    "deit_b16": 85_798_656,
    "mae_b16": 85_798_656,
    "mae_l16": 303_301_632,
    "mae_h14": 630_764_800,
    "mocov3_s16": 21_665_664,
    "mocov3_b16": 85_798_656,
    "dinov2_s14": 22_056_192,
    "dinov2_b14": 86_579_712,
    "dinov2_l14": 304_367_616,
    "dinov2_g14": 1_136_479_232,
    "dinov2_s14_reg4": 22_056_192 + 4 * 384,
    "dinov2_b14_reg4": 86_579_712 + 4 * 768,
    "dinov2_l14_reg4": 304_367_616 + 4 * 1024,
    "dinov2_g14_reg4": 1_136_479_232 + 4 * 1536,
    "clip_b32": 87_456_000,
    "clip_b16": 85_799_424,
    "clip_l14": 303_179_776,
    "siglip_b16": 92_884_224,
    "siglip_l16": 315_956_224,
    "siglip_so400m14": 427_680_704,
    "siglip2_b16": 92_884_224,
    "siglip2_l16": 315_956_224,
    "siglip2_so400m14": 427_680_704,
    "dinov3_s16": 21_586_944,
    "dinov3_s16plus": 28_683_264,
    "dinov3_b16": 85_641_216,
    "dinov3_l16": 303_079_424,
    "dinov3_h16plus": 840_509_440,
    "pe_core_b16": 92_886_528,
    "pe_core_l14": 316_102_656,
    "eva02_s14": 21_621_120,
    "eva02_b14": 85_758_720,
    "eva02_l14": 303_268_800,
    "swin_t": 27_519_354,
    "swin_s": 48_837_258,
    "swin_b": 86_743_224,
    "swin_l": 194_995_476,
    "swin_b_384": 86_878_584,
    "swin_l_384": 195_198_516,
    "convnext_t": 27_820_128,
    "convnext_s": 49_454_688,
    "convnext_b": 87_566_464,
    "convnext_l": 196_230_336,
    "convnext_xl": 348_147_968,
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "resnet101": 42_500_160,
    "resnet152": 58_143_808,
}


def test_every_backbone_is_here():
    assert set(backbones.CONFIGS) == set(COUNTS)
    assert {name: entry.num_params for name, entry in zoo.ZOO.items()} == COUNTS


# The first of each family; the others are slow.
FIRST = {type(config): name for name, config in reversed(backbones.CONFIGS.items())}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FIRST.values() else pytest.mark.slow)
        for name in backbones.CONFIGS
    ],
)
def test_parameter_count_equals_the_published_one(name):
    model = backbones.abstract(backbones.CONFIGS[name])
    assert count(nnx.as_pure(nnx.state(model, nnx.Param))) == COUNTS[name]


def test_unknown_backbone_and_bad_image_size_are_refused():
    with pytest.raises(UserError, match="'vit_b17'; known: .*vit_b16"):
        backbones.get_config("vit_b17")
    with pytest.raises(UserError, match="image_size 225 .* 16 px patches of vit_b16"):
        backbones.get_config("vit_b16", 225)
