"""A model that vpt_jax has tuned, in PyTorch: needs torch and timm, and no JAX.

    model = vpt_torch.load("export")                     # the folder of this file
    logits = model(model.preprocess(image)[None])        # a PIL image; (1, C)

    python vpt_torch.py export photos/ > classes.csv     # path, class, probability
    python vpt_torch.py export --onnx model.onnx

The network is timm's own. Beside this file lie `tuned.safetensors` and `manifest.json`,
what was tuned and how; `torch.json`, which network of timm and how its tensors are
called here; and `backbone_timm.safetensors`, its frozen weights, which may be shared:
`load("export", backbone="elsewhere.safetensors")` takes any file of timm's that holds
the weights that were tuned.

Licence: Apache-2.0, as vpt_jax; the weights have their own.
"""

import argparse
import csv
import json
import pathlib
import sys

import numpy as np
import timm.models as zoo
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.layers import SwiGLUPacked
from torch import Tensor, nn
from torch.nn import functional as F

FORMAT = 1  # of torch.json
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SUFFIXES = (".bmp", ".gif", ".jpg", ".jpeg", ".png", ".ppm", ".tif", ".tiff", ".webp")
FIRST = ("patch_embed.proj.weight", "stem.0.weight", "conv1.weight")
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"} | {
    "mean": "running_mean",
    "var": "running_var",
}


def load(export_dir, backbone=None) -> "Tuned":
    """The tuned network, ready for inference in float32.

    Args:
        export_dir: The folder of the export, with `torch.json`.
        backbone: A file of the frozen weights with timm's names; None: the one there.

    Raises:
        ValueError: The files do not belong together, or are of a newer format.
    """
    folder = pathlib.Path(export_dir)
    manifest = json.loads((folder / "manifest.json").read_text())
    about = json.loads((folder / "torch.json").read_text())
    if about["format"] > FORMAT:
        raise ValueError(f"torch.json is of format {about['format']}; this is {FORMAT}")
    tuned = load_file(folder / "tuned.safetensors")
    # 'trainable.head.bias' -> 'head.bias'
    tuned = {name.partition(".")[2]: array for name, array in tuned.items()}
    methods = manifest["config"]["method"]["name"].split("+")
    options = manifest["config"]["method"]

    state = load_file(backbone or folder / "backbone_timm.safetensors")
    state = {name: array.float() for name, array in state.items()}
    change_weights(state, about["names"], tuned, options)
    network = build(about, state)
    add_adapters(network, about["names"], tuned, options)
    model = FAMILIES[about["family"]](network, make_head(tuned), about)
    model.classes = tuple(manifest["classes"])
    model.add_prompts(tuned, methods, options)
    if tuned:
        raise ValueError(f"no place for {', '.join(sorted(tuned)[:8])}")
    return model.eval()


# ---- tuned weights of the backbone


class Number(int):
    """The number of a block or a stage; `{0.next}` in a name is the one after."""

    @property
    def next(self) -> int:
        return self + 1


def timm_name(names: dict, parts: list) -> tuple[str, int, int]:
    """(timm's name, part, parts) of a tensor called `parts` in the tuned file.

    Query, key and value are thirds of one tensor of timm's: 'attn.qkv[0/3]'.
    """

    def entry(parts):
        pattern = ".".join("{}" if part.isdigit() else part for part in parts)
        numbers = [Number(part) for part in parts if part.isdigit()]
        return names[pattern].format(*numbers) if pattern in names else None

    found, leaf = entry(parts), ""
    if found is None:
        found, leaf = entry(parts[:-1]), f".{LEAVES.get(parts[-1], parts[-1])}"
    if found is None:
        raise ValueError(f"no place for backbone.{'.'.join(parts)}")
    name, _, part = found.removesuffix("?").partition("[")
    first, _, count = part.removesuffix("]").partition("/")
    return name + leaf, int(first or 0), int(count or 1)


def plain(parts: list) -> list:
    """A name without the wrappers around a layer: 'base', 'block', a second 'query'."""
    kept = []
    for part in parts:
        if part not in ("base", "block") and [part] != kept[-1:]:
            kept.append(part)
    return kept


def change_weights(state: dict, names: dict, tuned: dict, options: dict) -> None:
    """Take the tuned tensors that change timm's weights out of `tuned`.

    On each layer in this order: values of its own; SSF's scale and shift; LoRA's
    product of two factors; the temperature of gated prompts, which divides the query.
    """
    of_backbone = {
        name: name.split(".")[1:] for name in tuned if name.startswith("backbone.")
    }
    shifted = {name[: -len("shift")] for name in of_backbone if name.endswith(".shift")}
    own, ssf, lora, temperatures = [], [], [], []
    for name, parts in of_backbone.items():
        if {"adapter", "adaptformer"} & set(parts) or parts[-1] == "gate":
            continue  # layers and edges of their own, see below
        if parts[-1] == "shift":
            ssf.append(name.removesuffix("shift"))
        elif parts[-1] == "a":
            lora.append(name.removesuffix("a"))
        elif parts[-1] == "temperature":
            temperatures.append(name)
        elif parts[-1] == "scale" and name.removesuffix("scale") in shifted:
            pass  # goes with its shift
        elif parts[-1] != "b":
            own.append(name)

    def view(name, leaf):
        """The rows of one of timm's tensors, to be changed in place."""
        parts = plain(name.rstrip(".").split(".")[1:])
        key, part, count = timm_name(names, [*parts, leaf])
        if key not in state and leaf == "bias":
            kernel, _, kernels = timm_name(names, [*parts, "kernel"])
            state[key] = torch.zeros(len(state[kernel]) // kernels * count)
        return state[key].chunk(count)[part]

    for name in own:
        key, part, count = timm_name(names, plain(of_backbone[name]))
        value = turned(name, tuned.pop(name))
        if count > 1:
            state[key].chunk(count)[part].copy_(value)
        else:
            state[key] = value
    for name in ssf:
        scale, shift = tuned.pop(name + "scale"), tuned.pop(name + "shift")
        weight, bias = view(name, "kernel"), view(name, "bias")
        weight.mul_(scale.view(-1, *(1,) * (weight.ndim - 1)))
        bias.mul_(scale).add_(shift)
    for name in lora:
        a, b = tuned.pop(name + "a"), tuned.pop(name + "b")
        factor = options["alpha"] / options["rank"]
        view(name, "kernel").add_(factor * (a @ b).T)
    for name in temperatures:
        temperature = tuned.pop(name).clamp(0.01, 10)
        layer = name.removesuffix("temperature")
        view(layer, "kernel").div_(temperature)
        view(layer, "bias").div_(temperature)


def turned(name: str, array: Tensor) -> Tensor:
    """A kernel (in, out) or (h, w, in, out) as (out, in) or (out, in, h, w)."""
    if not name.endswith(".kernel"):
        return array
    return array.permute((1, 0) if array.ndim == 2 else (3, 2, 0, 1)).contiguous()


def build(about: dict, state: dict) -> nn.Module:
    """timm's network with these weights."""
    arguments = dict(about["arguments"], num_classes=0)
    [arguments["in_chans"]] = [state[k].shape[1] for k in FIRST if k in state]
    network = ARCHITECTURES[about["family"]](**arguments)
    for module in network.modules():
        if isinstance(module, nn.LayerNorm) and "epsilon" in about:
            module.eps = about["epsilon"]
    registers = getattr(network, "num_reg_tokens", 0)
    if registers and state["pos_embed"].shape[1] == network.pos_embed.shape[1] + 1:
        # timm keeps the position of CLS inside the token where there are registers.
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    modules = dict(network.named_modules())
    for name in state.keys() - network.state_dict().keys():
        layer, _, leaf = name.rpartition(".")
        if leaf in ("bias", "k_bias") and hasattr(modules.get(layer), leaf):
            # SSF's shift where timm has no bias, or zeros that it does not store.
            setattr(modules[layer], leaf, nn.Parameter(state[name]))
    missing, _ = network.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(f"the backbone's file lacks {', '.join(missing[:8])}")
    return network


def vit(swiglu=False, **arguments) -> nn.Module:
    """timm's ViT; DINOv2's largest has SwiGLU in place of the MLP."""
    if swiglu:
        arguments["mlp_layer"] = SwiGLUPacked
    return zoo.vision_transformer.VisionTransformer(**arguments)


def resnet(block, **arguments) -> nn.Module:
    """timm's ResNet."""
    return zoo.resnet.ResNet(block=getattr(zoo.resnet, block), **arguments)


ARCHITECTURES = {
    "vit": vit,
    "eva": zoo.eva.Eva,
    "swin": zoo.swin_transformer.SwinTransformer,
    "convnext": zoo.convnext.ConvNeXt,
    "resnet": resnet,
}


# ---- what is tuned beside the weights


class Adapted(nn.Module):
    """An MLP with a bottleneck behind it (adapter) or beside it (AdaptFormer)."""

    def __init__(self, mlp: nn.Module, down: nn.Linear, up: nn.Linear, scale=None):
        super().__init__()
        self.mlp, self.down, self.up, self.scale = mlp, down, up, scale

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(x)
        if self.scale is None:
            return y + self.up(F.gelu(self.down(y)))
        return y + self.scale * self.up(F.relu(self.down(x)))


def add_adapters(network: nn.Module, names: dict, tuned: dict, options: dict) -> None:
    """Wrap the MLPs that have one."""
    for name in [name for name in tuned if name.endswith(".down.kernel")]:
        place = name.removesuffix(".down.kernel")
        wrapped, _, kind = place.rpartition(".")
        parts = plain(wrapped.split(".")[1:])
        layer = timm_name(names, [*parts, "fc1", "kernel"])[0].rsplit(".", 2)[0]
        down, up = linear(tuned, f"{place}.down"), linear(tuned, f"{place}.up")
        scale = options["scale"] if kind == "adaptformer" else None
        mlp = Adapted(network.get_submodule(layer), down, up, scale)
        owner, _, attribute = layer.rpartition(".")
        setattr(network.get_submodule(owner), attribute, mlp)


def linear(tuned: dict, name: str) -> nn.Linear:
    """A linear layer of the tuned file."""
    kernel = tuned.pop(f"{name}.kernel")
    layer = nn.Linear(*kernel.shape)
    layer.weight = nn.Parameter(kernel.T.contiguous())
    layer.bias = nn.Parameter(tuned.pop(f"{name}.bias"))
    return layer


def make_head(tuned: dict) -> nn.Module:
    """Features to logits: a linear layer, or several with ReLU and BatchNorm."""
    if "head.kernel" in tuned:
        return linear(tuned, "head")
    layers = []
    while f"head.hidden.{len(layers) // 3}.linear.kernel" in tuned:
        place = f"head.hidden.{len(layers) // 3}"
        layer = linear(tuned, f"{place}.linear")
        norm = nn.BatchNorm1d(layer.out_features)
        kinds = ("scale", "bias", "mean", "var")
        leaves = {LEAVES[kind]: tuned.pop(f"{place}.norm.{kind}") for kind in kinds}
        norm.load_state_dict(leaves, strict=False)
        layers += [layer, nn.ReLU(), norm]
    return nn.Sequential(*layers, linear(tuned, "head.out"))


def prompted_blocks(options: dict, depth: int) -> range:
    """The blocks that get prompts: all, the first or last few, or the first alone."""
    if not options.get("deep", False):
        return range(1)
    layers = options.get("layers") or depth
    return range(layers) if layers > 0 else range(depth + layers, depth)


def stored_prompts(tuned: dict, options: dict) -> list[Tensor]:
    """(P, D) for each stored prompt, projected and transformed where they are."""
    place = "edits.prompt.prompts"
    found = []
    while f"{place}.tokens.{len(found)}" in tuned:
        found.append(tuned.pop(f"{place}.tokens.{len(found)}"))
    if f"{place}.project.kernel" in tuned:
        project = linear(tuned, f"{place}.project")
        found = [project(tokens) for tokens in found]
    if "length" in options:  # one stored token may stand for all P
        found = [x.expand(options["length"], -1) for x in found]
    if "fourier" in options:  # VFPT
        few = max(1, round(options["fourier"] * options["length"]))
        found = [torch.cat([torch.fft.fft2(x[:few]).real, x[few:]]) for x in found]
    return [tokens.detach().clone() for tokens in found]


# ---- the network


class Tuned(nn.Module):
    """Preprocessed images (B, 3, s, s) to logits (B, C).

    Attributes:
        classes: Names of the C classes.
        size: s, in pixels.
    """

    def __init__(self, network: nn.Module, head: nn.Module, about: dict):
        super().__init__()
        self.network, self.head, self.about = network, head, about
        self.size = about["preprocessing"]["size"]
        self.prompts, self.gates = nn.ParameterDict(), nn.ParameterDict()
        self.pixels = nn.ParameterDict()
        self.how = {}  # block -> insert, replace, drop or add
        self.classes = ()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(self.with_pixels(images)))

    def features(self, images: Tensor) -> Tensor:
        """Normalised images to what the head takes, (B, D)."""
        network = self.network
        return network.forward_head(network.forward_features(images), pre_logits=True)

    def preprocess(self, image) -> Tensor:
        """A PIL image, the path of one, or uint8 RGB (h, w, 3), to (3, s, s)."""
        return preprocess(image, **self.about["preprocessing"])

    def add_prompts(self, tuned: dict, methods: list, options: dict) -> None:
        """Take the prompts and gates out of `tuned`."""
        self.prefix = self.about.get("prefix", 0)
        self.length = options.get("length", 0)
        self.reads = slice(*self.about.get("reads", (None,)))
        self._add_pixels(tuned)
        blocks = [*self.blocks()]
        for name in [name for name in tuned if name.endswith(".gate")]:
            self.gates[name.split(".")[2]] = torch.sigmoid(tuned.pop(name))
        if "edits.prompt.patches" in tuned:  # patches of pixels, embedded once
            patches = tuned.pop("edits.prompt.patches")
            patches = (
                normalised(patches) if options["pixels"] == "imagenet" else patches
            )
            embedded = self.network.patch_embed.proj(patches.permute(0, 3, 1, 2))
            self._put(0, "insert", embedded.flatten(1).detach())
            return
        stored = stored_prompts(tuned, options)
        if not stored:
            return
        where = prompted_blocks(options, len(blocks))
        for n, i in enumerate(where):
            tokens = stored[min(n, len(stored) - 1)]
            replaces = n > 0 or options.get("overwrite", False)
            how = "replace" if replaces else "insert"
            self._put(i, "add" if "prompt_add" in methods else how, tokens)
        kept = options.get("keep", True)
        if not kept and where.stop < len(blocks):
            self._put(where.stop, "drop", None)
        start = self.prefix
        end = start + (self.length if kept or where.stop == len(blocks) else 0)
        slices = {"image": slice(end, None), "prompt": slice(start, end)}
        slices |= {"image+prompt": slice(start, None), "original": self.reads}
        self.reads = slices[options.get("pool", "original")]

    def blocks(self):
        """The blocks that prompts go before."""
        return ()

    def with_pixels(self, images: Tensor) -> Tensor:
        """The images within a trained frame, or with trained channels."""
        if "rows" in self.pixels:
            rows, columns = (
                self.pixels[k].expand(images.shape[0], -1, -1, -1)
                for k in ("rows", "columns")
            )
            p = rows.shape[2] // 2
            middle = torch.cat([columns[..., :p], images, columns[..., p:]], 3)
            images = torch.cat([rows[:, :, :p], middle, rows[:, :, p:]], 2)
        if "channels" in self.pixels:
            channels = self.pixels["channels"].expand(images.shape[0], -1, -1, -1)
            images = torch.cat([images, channels], 1)
        return images

    def before(self, i: int, x: Tensor) -> Tensor:
        """The tokens that block i sees, (B, N, D)."""
        how = self.how.get(i)
        if how is None:
            return x
        front, behind = x[:, : self.prefix], self.prefix + self.length
        if how == "drop":
            return torch.cat([front, x[:, behind:]], 1)
        prompt = self.prompts[str(i)].expand(x.shape[0], -1, -1)
        if how == "add":
            return x + prompt
        rest = x[:, behind if how == "replace" else self.prefix :]
        return torch.cat([front, prompt, rest], 1)

    def behind(self, i: int, x: Tensor, out: Tensor) -> Tensor:
        """The tokens behind block i, whose gate mixes in the prompts before it."""
        if str(i) not in self.gates:
            return out
        gate, end = self.gates[str(i)], self.prefix + self.length
        here = slice(self.prefix, end)
        mixed = gate * out[:, here] + (1 - gate) * x[:, here]
        return torch.cat([out[:, : self.prefix], mixed, out[:, end:]], 1)

    def _put(self, i: int, how: str, tokens: Tensor | None) -> None:
        self.how[i] = how
        if tokens is not None:
            self.prompts[str(i)] = tokens

    def _add_pixels(self, tuned: dict) -> None:
        for ours, name in (("rows", "top_bottom"), ("columns", "left_right")):
            if f"edits.pad.{name}" in tuned:
                pixels = normalised(tuned.pop(f"edits.pad.{name}"))
                self.pixels[ours] = pixels.permute(2, 0, 1)[None]
        if "edits.below.channels" in tuned:
            channels = tuned.pop("edits.below.channels")
            if not hasattr(self.network, "patch_embed"):  # pixels of a grey image
                mean, std = np.mean(IMAGENET_MEAN), np.mean(IMAGENET_STD)
                channels = (channels - mean) / std
            self.pixels["channels"] = channels.permute(2, 0, 1)[None]


class TunedViT(Tuned):
    """A ViT: [prefix, prompts, patches] through its blocks, then a pool."""

    def blocks(self):
        return self.network.blocks

    def features(self, images: Tensor) -> Tensor:
        network, x = self.network, self.embed(images)
        for i, block in enumerate(network.blocks):
            x = self.before(i, x)
            x = self.behind(i, x, self.through(block, x))
        x = x[:, self.reads]
        if self.about["pool"] == "map":
            return network.attn_pool(network.norm(x))
        if self.about["pool"] == "avg":
            return network.fc_norm(x.mean(1))
        return network.norm(x).mean(1)

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images to [prefix, patches]."""
        network = self.network
        return network.norm_pre(network._pos_embed(network.patch_embed(images)))

    def through(self, block: nn.Module, x: Tensor) -> Tensor:
        """What a block makes of the tokens."""
        return block(x)


class TunedEva(TunedViT):
    """A ViT with rotary position embeddings: its patches turn, nothing else does.

    timm's blocks turn all tokens behind the prefix; here prompts stand between that
    and the patches, which are the last tokens of all, and turn by an angle of 0.
    """

    def embed(self, images: Tensor) -> Tensor:
        network = self.network
        return network.norm_pre(network._pos_embed(network.patch_embed(images))[0])

    def through(self, block: nn.Module, x: Tensor) -> Tensor:
        turns = self.network.rope.get_embed()  # patches, sines and cosines
        prompts = (0, 0, x.shape[1] - self.prefix - len(turns), 0)
        sin, cos = turns.chunk(2, -1)
        sin, cos = F.pad(sin, prompts), F.pad(cos, prompts, value=1)
        return block(x, rope=torch.cat([sin, cos], -1))


class TunedSwin(Tuned):
    """A Swin Transformer whose P prompts stand before the h w tokens of the image.

    They join every window without position bias or mask, leave with the mean over the
    windows, and are copied four times where patches merge.
    """

    def blocks(self):
        return [block for layer in self.network.layers for block in layer.blocks]

    def features(self, images: Tensor) -> Tensor:
        network = self.network
        x, i = network.patch_embed(images).flatten(1, 2), 0
        for layer in network.layers:
            side = layer.blocks[0].input_resolution[0]
            if hasattr(layer.downsample, "reduction"):
                x = merge(layer.downsample, x, 2 * side)
            for block in layer.blocks:
                x = self.before(i, x)
                x = x + attend(block, block.norm1(x), side)
                x = x + block.mlp(block.norm2(x))
                i += 1
        return network.norm(x[:, self.reads]).mean(1)


FAMILIES = {
    "vit": TunedViT,
    "eva": TunedEva,
    "swin": TunedSwin,
    "convnext": Tuned,
    "resnet": Tuned,
}


def split_image(x: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """(B, P, D) before the image tokens, and those as (B, side, side, D)."""
    extra = x.shape[1] - side * side
    return x[:, :extra], x[:, extra:].unflatten(1, (side, side))


def attend(block: nn.Module, x: Tensor, side: int) -> Tensor:
    """The attention of a Swin block, (B, P + h w, D)."""
    attn, window, shift = block.attn, block.window_size[0], block.shift_size[0]
    extra, image = split_image(x, side)
    num, count = extra.shape[1], side // window
    image = torch.roll(image, (-shift, -shift), (1, 2))
    image = image.unflatten(2, (count, window)).unflatten(1, (count, window))
    image = image.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)  # B W M D
    extra = extra[:, None].expand(-1, count * count, -1, -1)
    y = torch.cat([extra, image], 2)
    qkv = attn.qkv(y).unflatten(-1, (3, attn.num_heads, -1))
    query, key, value = (x.transpose(2, 3) for x in qkv.unbind(3))  # B W H N K
    bias = attn._get_rel_pos_bias()  # 1 H M M
    if block.attn_mask is not None:
        bias = bias + block.attn_mask[:, None]
    bias = F.pad(bias, (num, 0, num, 0))
    scores = (query * attn.scale) @ key.transpose(-1, -2) + bias
    y = (scores.softmax(-1) @ value).transpose(2, 3).flatten(3)
    y = attn.proj(y)
    extra, image = y[:, :, :num].mean(1), y[:, :, num:]
    image = image.unflatten(2, (window, window)).unflatten(1, (count, count))
    image = image.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)  # B h w D
    image = torch.roll(image, (shift, shift), (1, 2))
    return torch.cat([extra, image.flatten(1, 2)], 1)


def merge(layer: nn.Module, x: Tensor, side: int) -> Tensor:
    """Each 2 x 2 tokens of a side of `side` become one."""
    extra, image = split_image(x, side)
    half = side // 2
    image = image.unflatten(2, (half, 2)).unflatten(1, (half, 2))
    image = image.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)
    return layer.reduction(layer.norm(torch.cat([extra.repeat(1, 1, 4), image], 1)))


# ---- preprocessing


def preprocess(image, size: int, resize: str, shorter, mean, std) -> Tensor:
    """See `Tuned.preprocess`.

    Args:
        image: A PIL image, a path, or uint8 RGB (h, w, 3).
        size: Side in pixels of what the network takes.
        resize: 'legacy' (TensorFlow 1), 'pil_bilinear' or 'pil_bicubic'.
        shorter: (a, b): the shorter side becomes a / b of `size`, aspect ratio kept,
            and the central square is cut out; None: all becomes the square.
        mean, std: By channel, of images in [0, 1].
    """
    pixels = image if isinstance(image, np.ndarray) else read_image(image)
    width = height = size
    if shorter is not None:
        least, side = min(pixels.shape[:2]), size * shorter[0] // shorter[1]
        height, width = (side * n // least for n in pixels.shape[:2])
    if resize == "legacy":
        x = legacy_resize(torch.tensor(pixels).float(), size)
    else:
        kind = getattr(Image.Resampling, resize.removeprefix("pil_").upper())
        pixels = Image.fromarray(pixels).resize((width, height), kind)
        x = torch.tensor(np.asarray(pixels)).float()
    top, left = (round((n - size) / 2) for n in x.shape[:2])
    return normalised(x[top : top + size, left : left + size] / 255, mean, std).permute(
        2, 0, 1
    )


def read_image(image) -> np.ndarray:
    """A file or a PIL image as uint8 RGB; grey values of 16 bits become 8."""
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            return read_image(opened.copy())
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    return np.asarray(image.convert("RGB"))


def legacy_resize(image: Tensor, size: int) -> Tensor:
    """TensorFlow 1's bilinear resize, (h, w, 3) to (size, size, 3).

    Output pixel i lies at input coordinate i in / out, without the shift by half a
    pixel of `interpolate`, clamped at the far edge, without antialiasing.
    """
    for axis in (0, 1):
        length = image.shape[axis]
        scale = torch.tensor(float(length)) / torch.tensor(float(size))
        place = torch.arange(size, dtype=torch.float32) * scale
        lower = place.long().clamp(max=length - 1)
        upper = (lower + 1).clamp(max=length - 1)
        weight = (place - place.floor()).view((-1, 1, 1) if axis == 0 else (1, -1, 1))
        below, above = image.index_select(axis, lower), image.index_select(axis, upper)
        image = below * (1 - weight) + above * weight
    return image


def normalised(x: Tensor, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> Tensor:
    """Images in [0, 1], channels last, less their mean, over their deviation."""
    return (x - torch.tensor(mean)) / torch.tensor(std)


# ---- ONNX, and the command line


def to_onnx(model: Tuned, path) -> None:
    """Write `images` (B, 3, s, s), preprocessed, to `logits` (B, C), for any B."""
    image = torch.zeros(2, 3, model.size, model.size)
    torch.onnx.export(
        model,
        (image,),
        str(path),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def find_images(names: list[str]) -> list[pathlib.Path]:
    """Files, and all image files below folders, hidden ones left out."""
    found = []
    for path in map(pathlib.Path, names):
        inside = path.rglob("*") if path.is_dir() else [path]
        found += sorted(
            p
            for p in inside
            if p.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in p.relative_to(path).parts)
        )
    return found


def main() -> None:
    """Classify image files as CSV, or write the network as ONNX."""
    parser = argparse.ArgumentParser(description="A model that vpt_jax has tuned.")
    parser.add_argument("export", help="the folder with torch.json")
    parser.add_argument("images", nargs="*", help="files and folders to classify")
    parser.add_argument("--backbone", help="frozen weights with timm's names")
    parser.add_argument("--onnx", help="write the network to this file")
    given = parser.parse_args()
    model = load(given.export, given.backbone)
    if given.onnx:
        to_onnx(model, given.onnx)
    if not given.images:
        return
    paths, rows = find_images(given.images), csv.writer(sys.stdout)
    rows.writerow(("path", "class", "probability"))
    for start in range(0, len(paths), 32):
        some = paths[start : start + 32]
        with torch.inference_mode():
            logits = model(torch.stack([model.preprocess(path) for path in some]))
        for path, row in zip(some, logits.softmax(-1), strict=True):
            best = int(row.argmax())
            rows.writerow((path, model.classes[best], round(float(row[best]), 6)))


if __name__ == "__main__":
    main()
