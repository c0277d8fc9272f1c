"""Which checkpoints somebody else's manifest may have opened without asking."""

import pytest

from vpt_jax import UserError, checkpoints
from vpt_jax.checkpoints.zoo import ZOO


@pytest.mark.parametrize(
    "source", [None, "random", "runs/a/model.npz", "/models/b.pth", "~/c.safetensors"]
)
def test_what_needs_no_network(source):
    assert checkpoints.trusted("vit_b16", source) == source
    assert checkpoints.trusted("a_backbone_of_ones_own", source) == source


def test_the_known_address_of_each_backbone():
    for name, entry in ZOO.items():
        assert checkpoints.trusted(name, entry.url) == entry.url


def test_an_address_from_before_revisions_were_recorded():
    own = ZOO["deit_b16"].url
    assert "@" in own
    assert checkpoints.trusted("deit_b16", own.split("@")[0]) == own


@pytest.mark.parametrize(
    "source",
    [
        "hf://timm/deit_base_patch16_224.fb_in1k",  # of another backbone
        "https://example.org/model.npz",
        "http://localhost:8080/model.npz",
        "hf://somebody/model",
        "gs://bucket/model.npz",
        "file:///etc/passwd",
        "gs://vit_models/imagenet21k/ViT-L_16.npz",  # of another backbone
        "GS://vit_models/imagenet21k/ViT-B_16.npz",
    ],
)
@pytest.mark.parametrize("name", ["vit_b16", "a_backbone_of_ones_own"])
def test_other_addresses_are_for_the_user_to_name(name, source):
    with pytest.raises(UserError) as error:
        checkpoints.trusted(name, source)
    message = str(error.value)
    assert "\n" not in message and name in message
    assert f"names {source}" in message
    assert f"config.backbone.checkpoint={source}" in message


@pytest.mark.parametrize("source", [3, ["a"], {"a": 1}, ""])
def test_what_is_no_name(source):
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoints.trusted("vit_b16", source)
