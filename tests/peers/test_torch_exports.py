"""What PyTorch makes of an export, from image files to logits: ours to 1e-4.

PyTorch runs in a process that has no vpt_jax, all cases in one; onnxruntime beside it.
"""

import subprocess
import sys

import jax
import numpy as np
import pytest
from exchange import made

from vpt_jax import backbones
from vpt_jax.data.examples import Examples
from vpt_jax.data.images import read_image
from vpt_jax.exchange import pytorch
from vpt_jax.serving.load import load

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]

P = {"length": 3}
METHODS = {
    "deep": ("vpt_deep", P),
    "shallow": ("vpt_shallow", P),
    "linear": ("linear", {}),
    "lora": ("lora-2", {}),
    "bias": ("bias", {}),
    "prompt+bias": ("prompt+bias", P),
}
CONVOLUTIONS = {
    "pad": ("prompt_pad", {"padding": 4}),
    "below": ("prompt_below", {"length": 2}),
    "linear": ("linear", {}),
    "bias": ("bias", {}),
    "pad+bias": ("prompt_pad+bias", {"padding": 4}),
}
CASES = {
    f"{backbone}-{label}": (backbone, *method)
    for backbone in made.BACKBONES
    for label, method in (
        CONVOLUTIONS if "convnext" in backbone or "resnet" in backbone else METHODS
    ).items()
} | {
    "convnext-lora": ("tiny_convnext", "lora-2", {"targets": "fc1,fc2"}),
    "convnext-adapter": ("tiny_convnext", "adapter-4", {}),
    "swin-adapter": ("tiny_swin", "adapter-4", {}),
    "swin-ssf": ("tiny_swin", "ssf", {}),
    "resnet-ssf": ("tiny_resnet50", "ssf", {}),
    "resnet-full": ("tiny_resnet18", "full", {}),
    "clip-ssf": ("tiny_clip", "ssf", {}),
    "siglip-ssf": ("tiny_siglip", "ssf", {}),
    "dinov3-ssf": ("tiny_dinov3", "ssf", {}),
    "dinov3-plus-ssf": ("tiny_dinov3_plus", "ssf", {}),
    "pe-ssf": ("tiny_pe", "ssf", {}),
    "eva02-small-ssf": ("tiny_eva02_small", "ssf", {}),
    "eva02-ssf": ("tiny_eva02", "ssf", {}),
    "dinov3-gated": ("tiny_dinov3", "gated", P),
    "pe-gated+bias": ("tiny_pe", "gated+bias", P),
    "eva02-small-gated": ("tiny_eva02_small", "gated", P),
    "eva02-gated": ("tiny_eva02", "gated", P),
    "dinov3-plus-full": ("tiny_dinov3_plus", "full", {}),
    "pe-full": ("tiny_pe", "full", {}),
    "eva02-small-full": ("tiny_eva02_small", "full", {}),
    "eva02-partial": ("tiny_eva02", "partial-1", {}),
    "eva02-small-lora": (
        "tiny_eva02_small",
        "lora-2",
        {"targets": "query,key,value,out,fc1,fc2"},
    ),
    "eva02-lora": ("tiny_eva02", "lora-2", {"targets": "key,fc1"}),
    "dinov3-plus-adapter": ("tiny_dinov3_plus", "adapter-4", {}),
    "pe-adaptformer": ("tiny_pe", "adaptformer", {"bottleneck": 4}),
    "eva02-layernorm": ("tiny_eva02", "layernorm", {}),
    "dinov3-cls": ("tiny_dinov3", "cls", {}),
    "dinov3-pixel": ("tiny_dinov3", "prompt_pixel", {"length": 2}),
    "pe-added": ("tiny_pe", "prompt_add", {}),
    "pe-below": ("tiny_pe", "prompt_below", {"length": 2}),
    "eva02-pad": ("tiny_eva02", "prompt_pad", {"padding": 8}),
    "dinov3-dropped": ("tiny_dinov3", "vpt_deep", P | {"layers": 1, "keep": False}),
    "dinov3-overwritten": (
        "tiny_dinov3",
        "vpt_deep",
        P | {"layers": -1, "overwrite": True},
    ),
    "eva02-of-the-image": ("tiny_eva02", "vpt_deep", P | {"pool": "image"}),
    "registers-cls": ("tiny_dinov2_reg", "cls", {}),
    "registers-full": ("tiny_dinov2_reg", "full", {}),
    "full": ("tiny_vit", "full", {}),
    "partial": ("tiny_mae", "partial-1", {}),
    "layernorm": ("tiny_vit", "layernorm", {}),
    "cls": ("tiny_vit", "cls", {}),
    "mlp": ("tiny_vit", "mlp-3", {}),
    "ssf": ("tiny_vit", "ssf", {}),
    "adapter": ("tiny_vit", "adapter-4", {}),
    "adaptformer": ("tiny_vit", "adaptformer", {"bottleneck": 4}),
    "adapter+bias": ("tiny_vit", "adapter-4+bias", {}),
    "lora+bias": ("tiny_vit", "lora-2+bias", {"targets": "query,key,value,out,fc1"}),
    "gated": ("tiny_mae", "gated", P),
    "gated+bias": ("tiny_vit", "gated+bias", P),
    "vfpt": ("tiny_vit", "vfpt", {"length": 4}),
    "added": ("tiny_vit", "prompt_add", {}),
    "added-one": ("tiny_siglip", "prompt_add", {"single": True}),
    "pixel": ("tiny_vit", "prompt_pixel", {"length": 2, "pixels": "imagenet"}),
    "pad": ("tiny_vit", "prompt_pad", {"padding": 8}),
    "below": ("tiny_clip", "prompt_below", {"length": 2}),
    "projected": ("tiny_vit", "vpt_deep", P | {"project": 5}),
    "shared": ("tiny_vit", "vpt_deep", P | {"share": "all"}),
    "dropped": ("tiny_vit", "vpt_deep", P | {"layers": 1, "keep": False}),
    "overwritten": ("tiny_vit", "vpt_deep", P | {"layers": -1, "overwrite": True}),
    "of-prompts": ("tiny_vit", "vpt_deep", P | {"pool": "image+prompt"}),
    "untrained": ("tiny_vit", "vpt_deep", P | {"trained": False}),
    "shorter": ("tiny_vit", "linear", {"preset": "vpt_fgvc"}),
    "bicubic": ("tiny_vit", "linear", {"preset": "noah"}),
}
ONNX = [
    "tiny_vit-deep",
    "tiny_swin-deep",
    "tiny_siglip-prompt+bias",
    "tiny_resnet50-pad",
]
ONNX += ["tiny_convnext-linear", "gated", "adapter", "tiny_dinov3-deep"]
ONNX += ["tiny_pe-prompt+bias", "tiny_eva02_small-deep"]
PROGRAM = """
import importlib.util, json, pathlib, sys
import numpy, torch
root, onnx = pathlib.Path(sys.argv[1]), sys.argv[2].split(",")
found = {}
for folder in sorted(p.parent for p in root.glob("*/torch.json")):
    spec = importlib.util.spec_from_file_location("vpt_torch", folder / "vpt_torch.py")
    vpt_torch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(vpt_torch)
    model = vpt_torch.load(folder)
    paths = vpt_torch.find_images([root / "images"])
    images = torch.stack([model.preprocess(path) for path in paths])
    with torch.inference_mode():
        found[folder.name] = model(images).numpy()
    if folder.name in onnx:
        import onnxruntime
        vpt_torch.to_onnx(model, folder / "model.onnx")
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        for few in (1, 3, len(images)):
            rows = session.run(None, {"images": images[:few].numpy()})[0]
            found[f"{folder.name} onnx {few}"] = rows
assert not {"jax", "flax", "vpt_jax"} & sys.modules.keys()
assert importlib.util.find_spec("vpt_jax") is None
numpy.savez(root / "logits.npz", **found)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory, request):
    """Our networks, the images, and what PyTorch and onnxruntime gave: all that is run
    of `CASES`."""
    own = [item for item in request.session.items if item.module is request.module]
    asked = {item.callspec.params["name"] for item in own}
    root = tmp_path_factory.mktemp("torch")
    paths = sorted(made.draw_images(root / "images"))
    models = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, config in made.BACKBONES.items():
            patch.setitem(backbones.CONFIGS, name, config)
        for name in sorted(asked):
            backbone, method, options = CASES[name]
            folder = made.make(root, name, backbone, method, **dict(options))
            models[name] = load(folder, precision="float32")
            pytorch.write(models[name], folder)
        code = [sys.executable, "-c", PROGRAM, str(root), ",".join(ONNX)]
        done = subprocess.run(
            code, cwd=root, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        decoded = [read_image(path) for path in paths]
        images = Examples.from_images(
            decoded, [0] * len(decoded), [path.name for path in paths]
        )
        with np.load(root / "logits.npz") as found:
            yield models, images, dict(found)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_ours(exported, name):
    models, images, found = exported
    with jax.default_matmul_precision("highest"):
        wanted = models[name].outputs(images)
    assert np.ptp(wanted, axis=0).max() > 1e-3  # the images make a difference
    np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ONNX)
def test_onnx_gives_the_same_at_any_batch(exported, name):
    models, images, found = exported
    with jax.default_matmul_precision("highest"):
        wanted = models[name].outputs(images)
    for few in (1, 3, len(images)):
        rows = found[f"{name} onnx {few}"]
        np.testing.assert_allclose(rows, wanted[:few], rtol=0, atol=1e-4)
