"""The public PyTorch code's options and parameters in this project's terms.

Layouts there: Linear (out, in), Conv (out, in, kh, kw), images (3, h, w).
"""

import re

import numpy as np

from vpt_jax.backbones.convnext import ConvNeXtConfig
from vpt_jax.backbones.mae import MAEConfig
from vpt_jax.backbones.moco import MoCoConfig
from vpt_jax.backbones.resnet import ResNetConfig
from vpt_jax.backbones.swin import SwinConfig
from vpt_jax.backbones.vit import ViTConfig
from vpt_jax.types import Path

_NORM = {"weight": "scale", "bias": "bias"}
_LINEAR = {"weight": "kernel", "bias": "bias"}
_BLOCK_NORMS = {"attention_norm": "norm1", "ffn_norm": "norm2"}
_EMBEDDINGS = {
    "position_embeddings": ("pos_embed",),
    "cls_token": ("cls",),
    "patch_embeddings.weight": ("patch_embed", "kernel"),
    "patch_embeddings.bias": ("patch_embed", "bias"),
}
_TYPES = {
    "linear": "linear",
    "end2end": "full",
    "tinytl-bias": "bias",
    "bias": "bias",
    "adapter": "adapter",
    "prompt": "prompt",
    "cls": "cls",
    "cls-reinit": "cls-reinit",
}
_LOCATIONS = {
    "prepend": ("prompt", {}),
    "add": ("prompt_add", {"single": False}),
    "add-1": ("prompt_add", {"single": True}),
    "prepend-pixel": ("prompt_pixel", {"pixels": "uniform"}),
    "prepend-pixel-gaussian": ("prompt_pixel", {"pixels": "gaussian"}),
    "prepend-pixel-imgnettransform": ("prompt_pixel", {"pixels": "imagenet"}),
    "pad": ("prompt_pad", {}),
    "below": ("prompt_below", {}),
}
_POOLS = {
    "original": "original",
    "img_pool": "image",
    "prompt_pool": "prompt",
    "imgprompt_pool": "image+prompt",
}
_HIDDEN = {
    0: ("linear", _LINEAR),
    2: (
        "norm",
        _NORM | {"running_mean": "mean", "running_var": "var"},
    ),
}


def config_of(arch: dict, image_size: int):
    """The shape of a case's backbone."""
    family = arch["family"]
    if family == "swin":
        return SwinConfig(
            arch["embed_dim"],
            tuple(arch["depths"]),
            tuple(arch["num_heads"]),
            arch["window_size"],
            arch["patch_size"],
            image_size,
        )
    if family == "convnext":
        return ConvNeXtConfig(tuple(arch["depths"]), tuple(arch["dims"]), image_size)
    if family == "resnet":
        return ResNetConfig(
            tuple(arch["layers"]),
            arch["expansion"] == 4,
            tuple(arch["planes"]),
            arch["stem"],
            image_size,
        )
    kind = {"vit": ViTConfig, "mae": MAEConfig, "moco": MoCoConfig}[family]
    keys = ("patch", "hidden", "layers", "heads", "mlp")
    return kind(*(arch[key] for key in keys), image_size)


def choose(case: dict) -> tuple[str, dict]:
    """Names of methods joined by '+', and their options, for a golden case."""
    public = {k.rsplit(".", 1)[1]: v for k, v in case["options"].items()}
    names, ours = [], {}
    for part in case["transfer_type"].split("+"):
        if part == "prompt":
            name, options = _prompt(public)
            names.append(name)
            ours |= options
        elif match := re.fullmatch(r"partial-(\d+)", part):
            names.append("partial")
            ours["blocks"] = _blocks(case["arch"], int(match[1]))
            if case["arch"]["family"] == "moco":
                ours["final_norm"] = False
        else:
            names.append(_TYPES[part])
    if "REDUCATION_FACTOR" in public:
        ours["reduction"] = public.pop("REDUCATION_FACTOR")
    if case["mlp_num"]:
        names.append(f"mlp-{case['mlp_num'] + 1}")
    if "bias" in names and case["arch"]["family"] == "swin":
        ours["position_bias"] = True
    if "full" in names:
        ours |= {"backbone_dropout": 0.0, "drop_path": 0.0}
    if set(names) & {"prompt", "prompt_add"} or case["mlp_num"]:
        ours["dropout"] = 0.0
    if public:
        raise ValueError(f"{case['name']}: options without a counterpart: {public}")
    return "+".join(names), ours


def _blocks(arch: dict, number: int) -> int:
    """How many last blocks the public code's partial-`number` trains.

    On a ViT so many; on a Swin 2 is the last stage, 4 two blocks more; on a
    convolutional network 0 is one block and k the last k stages.
    """
    if arch["family"] == "swin":
        return 1 if number == 1 else arch["depths"][-1] + number - 2
    if arch["family"] in ("convnext", "resnet"):
        depths = arch.get("depths") or arch["layers"]
        return sum(depths[-number:]) if number else 1
    return number


def _prompt(public: dict) -> tuple[str, dict]:
    """The prompt method of the options, which are used up."""
    name, options = _LOCATIONS[public.pop("LOCATION", "prepend")]
    options = dict(options)
    length, deep = public.pop("NUM_TOKENS", 5), public.pop("DEEP", False)
    project = public.pop("PROJECT", 0)
    if name in ("prompt", "prompt_pixel", "prompt_below"):
        options["length"] = length
    if name == "prompt_pad":
        options["padding"] = length
    if name in ("prompt", "prompt_add"):
        options |= {"deep": deep, "project": max(project, 0)}
        options["layers"] = public.pop("NUM_DEEP_LAYERS", None) or 0
        if public.pop("REVERSE_DEEP", False):
            options["layers"] *= -1
            options |= {"overwrite": True} if name == "prompt" else {}
    if name == "prompt":
        options["share"] = "inter" if public.pop("DEEP_SHARED", False) else "none"
        options["keep"] = not public.pop("FORWARD_DEEP_NOEXPAND", False)
        options["pool"] = _POOLS[public.pop("VIT_POOL_TYPE", "original")]
    return name, options


def to_ours(family: str, name: str, array: np.ndarray) -> dict[Path, np.ndarray]:
    """The tensors by path that one parameter of the public code corresponds to."""
    if name.startswith("head."):
        return {("head", *_head(name)): _layout(array)}
    name = name.removeprefix("enc.").removeprefix("transformer.")
    if "prompt_embeddings" in name:
        return _prompt_tensors(name, array)
    if name.startswith("prompt_proj."):
        kind = _LINEAR[name.split(".")[1]]
        return {("edits", "prompt", "prompts", "project", kind): _layout(array)}
    if family == "vit":
        return _vit(name, array)
    if family in ("mae", "moco", "swin"):
        return _timm(name, array)
    return {("backbone", *_convolutional(name)): _layout(array)}


def _vit(name: str, array: np.ndarray) -> dict[Path, np.ndarray]:
    """The public code's own ViT."""
    if name.startswith("embeddings."):
        path = _EMBEDDINGS[name.removeprefix("embeddings.")]
        return {("backbone", *path): array if array.ndim == 3 else _layout(array)}
    if name.startswith("encoder.encoder_norm."):
        return {("backbone", "norm", _NORM[name.split(".")[-1]]): array}
    return {("backbone", "blocks", *_block(name)): _layout(array)}


def _timm(name: str, array: np.ndarray) -> dict[Path, np.ndarray]:
    """timm's ViT and the Swin release, both with q, k and v in one tensor."""
    if name in ("cls_token", "pos_embed"):
        return {("backbone", name.removesuffix("_token")): array}
    *parts, kind = name.split(".")
    if kind == "relative_position_bias_table":
        return {("backbone", *_timm_module(parts), "position_bias"): array}
    if parts[-1] == "qkv":
        module = _timm_module(parts[:-1])
        each = np.split(_layout(array), 3, axis=-1)
        return {
            ("backbone", *module, part, _LINEAR[kind]): x
            for part, x in zip(("query", "key", "value"), each, strict=True)
        }
    kinds = _NORM if "norm" in parts[-1] else _LINEAR
    return {("backbone", *_timm_module(parts), kinds[kind]): _layout(array)}


def _timm_module(parts: list[str]) -> Path:
    renamed = {
        "patch_embed.proj": "patch_embed",
        "patch_embed.norm": "patch_norm",
        "fc_norm": "norm",
    }
    name = ".".join(parts)
    parts = renamed.get(name, name).split(".")
    own = {"layers": "stages", "proj": "out", "downsample": "merging"}
    return tuple(int(p) if p.isdigit() else own.get(p, p) for p in parts)


def _convolutional(name: str) -> Path:
    """Of the last block, which the public wrapper moves to `tuned_layers`."""
    if name.startswith("norm."):
        return ("norm", _NORM[name.removeprefix("norm.")])
    match = re.fullmatch(r"tuned_layers\.(?:stage|layer)4\.(.+)", name)
    part, *rest = match[1].split(".")
    last = ("stages", -1, "blocks", -1)
    if part == "gamma":
        return (*last, "gamma")
    if found := re.fullmatch(r"(conv|bn)(\d)", part):
        kinds = {"conv": ("convs", _LINEAR), "bn": ("norms", _NORM)}
        module, kinds = kinds[found[1]]
        return (*last, module, int(found[2]) - 1, kinds[rest[0]])
    module = {"dwconv": "conv", "norm": "norm", "pwconv1": "mlp", "pwconv2": "mlp"}
    inner = {"pwconv1": ("fc1",), "pwconv2": ("fc2",)}.get(part, ())
    kinds = _NORM if part == "norm" else _LINEAR
    return (*last, module[part], *inner, kinds[rest[0]])


def _prompt_tensors(name: str, array: np.ndarray) -> dict[Path, np.ndarray]:
    tokens = ("edits", "prompt", "prompts", "tokens")
    if name.startswith("deep_prompt_embeddings"):  # behind the first prompt, if any
        stage = int((re.findall(r"\d+", name) or [0])[0])
        return {(*tokens, ("deep", stage, i)): x for i, x in enumerate(array)}
    if name.endswith("_tb"):
        return {("edits", "pad", "top_bottom"): array[0].transpose(1, 2, 0)}
    if name.endswith("_lr"):
        return {("edits", "pad", "left_right"): array[0].transpose(1, 2, 0)}
    if array.ndim == 3:
        return {(*tokens, 0): array[0]}
    if array.shape[1] != 3 or array.shape[2] == array.shape[3]:
        return {("edits", "below", "channels"): array[0].transpose(1, 2, 0)}
    patch = array.shape[2]
    patches = array[0].reshape(3, patch, -1, patch).transpose(2, 1, 3, 0)
    return {("edits", "prompt", "patches"): patches}


def placed(
    tensors: dict[Path, np.ndarray], depths: list[int]
) -> dict[Path, np.ndarray]:
    """The paths that depend on what else there is.

    Deep prompts take the numbers behind the first prompt, or from 0 without one, stage
    after stage; the last layer of a head with hidden layers is its `out`; -1 is the
    last of the `depths` stages and its last block.
    """
    tokens = ("edits", "prompt", "prompts", "tokens")
    shift = 1 if (*tokens, 0) in tensors else 0
    hidden = any(path[:2] == ("head", "hidden") for path in tensors)
    deep = sorted(path for path in tensors if isinstance(path[-1], tuple))
    last = {2: len(depths) - 1, 4: depths[-1] - 1}

    def place(path: Path) -> Path:
        if path in deep:
            return (*path[:-1], deep.index(path) + shift)
        if path[:2] == ("backbone", "stages"):
            return tuple(last[n] if p == -1 else p for n, p in enumerate(path))
        return ("head", "out", path[1]) if hidden and len(path) == 2 else path

    return {place(path): x for path, x in tensors.items()}


def _head(name: str) -> Path:
    part, *rest = name.removeprefix("head.").split(".")
    if part == "last_layer":
        return (_LINEAR[rest[0]],)
    number = int(rest[0])
    module, kinds = _HIDDEN[number % 4]
    return ("hidden", number // 4, module, kinds[rest[1]])


def _block(name: str) -> Path:
    match = re.fullmatch(r"encoder\.layer\.(\d+)\.(\w+)\.(.+)", name)
    if match is None:
        raise KeyError(f"no tensor corresponds to {name}")
    index, part, rest = int(match[1]), match[2], match[3].split(".")
    if part in _BLOCK_NORMS:
        return (index, _BLOCK_NORMS[part], _NORM[rest[0]])
    if part.startswith("adapter_"):
        side = {"adapter_downsample": "down", "adapter_upsample": "up"}[part]
        return (index, "mlp", "adapter", side, _LINEAR[rest[0]])
    part = {"attn": "attn", "ffn": "mlp"}[part]
    return (index, part, rest[0], _LINEAR[rest[1]])


def _layout(array: np.ndarray) -> np.ndarray:
    """Output channels last."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
