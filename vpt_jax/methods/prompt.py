"""Visual Prompt Tuning (Jia, Tang et al., ECCV 2022, arXiv 2203.12119, section 3).

    before the first prompted block  [CLS, patches]        -> [CLS, P prompts, patches]
    before the others                [CLS, P old, patches] -> [CLS, P prompts, patches]
    behind them                      the last ones stay, or are dropped (`keep`)

On a Swin Transformer prompts have the width of their stage and pass with the image
through the merging in between (`vit_prompt/swin_transformer.py`).

Shallow prompting prompts the first block only, deep prompting every block. Prompts get
no position embedding and enter after the backbone's embedding dropout (`src/models/
vit_prompt/vit.py:75-87` of the public code). The ablations of the paper's section 4.3
and appendix are options (`vit_ablations.py` there).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from vpt_jax.backbones import kernels
from vpt_jax.errors import UserError
from vpt_jax.model import Context, Edit, Model
from vpt_jax.types import Backbone, Path, Size, Tree

FROM_IMAGES = ("cls", "cls_layers", "prototypes")
INITS = ("xavier", "normal", *FROM_IMAGES)
POOLS = ("original", "image", "prompt", "image+prompt")
SHARES = ("none", "inter", "intra", "all")


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """Options of prompt tuning.

    Attributes:
        length: P, prompt tokens per prompted layer.
        deep: New prompts before every block, or only before the first.
        layers: Prompt only the first n blocks, or for -n the last n; 0 is all.
        share: What is one and the same (paper, figure 12), of L x P x D parameters:
            'none'; 'inter': the P tokens of all prompted blocks, P x D are left;
            'intra': the tokens of a block, L x D; 'all': every token, D.
        trained: False keeps the tokens (and their projection) as they were drawn from
            the trial's seed, so that the head alone is trained (paper, figure 11;
            `prompt-noupdate` of the public code). They are exported all the same.
        keep: Keep the last prompts in the sequence behind the prompted blocks.
        overwrite: Put the prompts of the last n blocks in place of the first P patches,
            not before them: the public code's defect, for comparison.
        init: 'xavier': uniform as in the public code; 'normal': deviation 0.02;
            'cls': CLS tokens of P training images after the last block; 'cls_layers':
            after each block, for the prompts of that block; 'prototypes': their means
            over the images of each class (P must be C).
        pool: Tokens whose mean is classified; 'original': those of the backbone.
        dropout: Rate on the prompt tokens while training, one mask per image; unless
            it is given, 0 for shallow prompts (`recipes.py`).
        project: Channels of the stored prompts, which one shared linear layer projects
            to the backbone's width; 0 stores them at full width.
    """

    length: int = 10
    deep: bool = True
    layers: int = 0
    share: str = "none"
    trained: bool = True
    keep: bool = True
    overwrite: bool = False
    init: str = "xavier"
    pool: str = "original"
    dropout: float = 0.1
    project: int = 0

    def __post_init__(self):
        check_common(self)
        for option, known in (("init", INITS), ("pool", POOLS), ("share", SHARES)):
            if getattr(self, option) not in known:
                raise UserError(
                    f"method.{option} {getattr(self, option)!r} is unknown; known: "
                    f"{', '.join(known)}"
                )
        if self.overwrite and self.layers >= 0:
            raise UserError("method.overwrite needs method.layers=-n (last blocks)")
        if self.project and self.init in FROM_IMAGES:
            raise UserError(
                f"method.init {self.init!r} gives prompts of full width; it needs "
                "method.project=0"
            )
        if self.one_token and self.init in FROM_IMAGES:
            raise UserError(
                f"method.share {self.share!r} stores one token; it needs method.init "
                "xavier or normal"
            )
        dropped = not self.keep and self.layers >= 0 and (self.layers or not self.deep)
        if dropped and "prompt" in self.pool:
            raise UserError(
                f"method.pool {self.pool!r} reads prompts, but method.keep=False drops "
                "them"
            )

    @property
    def one_token(self) -> bool:
        """Whether the P tokens of a block are copies of one."""
        return self.share in ("intra", "all")

    @property
    def one_block(self) -> bool:
        """Whether all prompted blocks have the same tokens."""
        return self.share in ("inter", "all")


def check_common(config) -> None:
    """Refuse values out of range of the options that prompt methods share."""
    if getattr(config, "length", 1) < 1:
        raise UserError(f"method.length {config.length} must be at least 1 token")
    if not 0 <= config.dropout < 1:
        raise UserError(f"method.dropout {config.dropout} must be in [0, 1)")
    if getattr(config, "project", 0) < 0:
        raise UserError(f"method.project {config.project} must be 0 (off) or more")
    if getattr(config, "layers", 0) and not config.deep:
        raise UserError("method.layers needs method.deep=True; shallow is one layer")


def prompted(config, backbone: Backbone) -> range:
    """The blocks that get prompts.

    Raises:
        UserError: The backbone has no tokens, or fewer blocks.
    """
    depth = len(backbone.blocks)
    if not all(hasattr(block, "attn") for block in backbone.blocks):
        raise UserError(
            f"prompt tokens need blocks with attention; {type(backbone).__name__} has "
            "none: choose prompt_pad or prompt_below, or another backbone"
        )
    if not config.deep:
        return range(1)
    layers = config.layers or depth
    if abs(layers) > depth:
        raise UserError(
            f"method.layers {layers}: the backbone has {depth} blocks to prompt"
        )
    return range(layers) if layers > 0 else range(depth + layers, depth)


def uniform_bound(backbone: Backbone, channels: int) -> float:
    """Xavier uniform over a patch (`src/models/vit_prompt/vit.py:57`)."""
    return math.sqrt(6 / (3 * backbone.config.patch**2 + channels))


class Prompt(nnx.Param):
    """A trained prompt, (P, D) or of the shape of the images."""


class PromptTokens(nnx.Module):
    """P stored tokens for each of some blocks, their projection and dropout."""

    def __init__(self, blocks, bound_of, config, length: int, rngs: nnx.Rngs):
        widths = [block.width for block in blocks]
        if config.project and len(set(widths)) > 1:
            raise UserError(
                "method.project needs prompted blocks of one width; here they have "
                f"{', '.join(map(str, sorted(set(widths))))}"
            )
        bound = bound_of(config.project or widths[0])

        def start(width):
            key, shape = rngs.params(), (length, config.project or width)
            if getattr(config, "init", "xavier") == "normal":
                return 0.02 * jax.random.normal(key, shape)
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        self.tokens = nnx.List([Prompt(start(width)) for width in widths])
        self.project = nnx.data(None)
        if config.project:
            self.project = _projection(config.project, widths[0], rngs)
        self.dropout = nnx.Dropout(config.dropout)

    def __call__(
        self,
        prompt: Float[Array, "P stored"],
        batch: Size,
        dtype,
        context: Context,
        per_batch: bool = False,
    ) -> Float[Array, "B P D"]:
        """One of `tokens` for every image; `per_batch`: all with one dropout mask."""
        if self.project is not None:
            prompt = self.project(prompt)
        drop = functools.partial(
            self.dropout, deterministic=not context.train, rngs=context.key
        )
        prompt = drop(prompt) if per_batch else prompt
        prompt = jnp.broadcast_to(prompt, (batch, *prompt.shape))
        prompt = prompt if per_batch else drop(prompt)
        return prompt.astype(dtype)


class Prompts(Edit):
    """The prompt tokens of all prompted layers, and what puts them in place."""

    def __init__(
        self,
        model: Model,
        config: PromptConfig,
        rngs: nnx.Rngs,
        make_tokens: Callable = PromptTokens,
    ):
        backbone = model.backbone
        self.blocks = prompted(config, backbone)
        self.num_prefix = backbone.num_prefix
        self.length, self.keep = config.length, config.keep
        self.one_block, self.overwrite = config.one_block, config.overwrite
        # The public code drops deep prompts of Swin before it copies them to the batch.
        self.per_batch = hasattr(backbone, "stages")
        owners = [backbone.blocks[i] for i in self.blocks]
        if config.one_block and len({block.width for block in owners}) > 1:
            raise UserError(
                f"method.share={config.share} needs prompted blocks of one width; the "
                f"stages of {type(backbone).__name__} differ"
            )
        self.prompts = make_tokens(
            owners[:1] if config.one_block else owners,
            functools.partial(uniform_bound, backbone),
            config,
            1 if config.one_token else config.length,
            rngs,
        )

    def layer(self, i: int) -> tuple[str, Tree] | None:
        """Insert the prompts before the first prompted block, replace them later."""
        if i == self.blocks.stop and not self.keep:
            return "drop", None
        if i not in self.blocks:
            return None
        stored = self.prompts.tokens[0 if self.one_block else i - self.blocks.start]
        tokens = jnp.broadcast_to(stored[...], (self.length, stored.shape[-1]))
        replaces = self.overwrite or i > self.blocks.start
        return "replace" if replaces else "insert", tokens

    def change(
        self, name: str, tensors: Tree, tokens: Float[Array, "B N D"], context: Context
    ) -> Float[Array, "B M D"]:
        """Put the prompts behind the prefix."""
        end = self.num_prefix + self.length
        prefix = tokens[:, : self.num_prefix]
        if name == "drop":
            return jnp.concatenate([prefix, tokens[:, end:]], axis=1)
        prompt = self.prompts(
            tensors,
            tokens.shape[0],
            tokens.dtype,
            context,
            per_batch=self.per_batch and name == "replace",
        )
        rest = tokens[:, end if name == "replace" else self.num_prefix :]

        def join(tokens, prompt):
            return jnp.concatenate([prefix, prompt, rest], axis=1)

        def write(tokens, prompt):  # a step on CPU takes 1.07 times as long with it
            return jax.lax.dynamic_update_slice(tokens, prompt, (0, self.num_prefix, 0))

        if name == "insert":
            return join(tokens, prompt)
        return kernels.by_platform(tokens, prompt, tpu=write, default=join)

    def reads(self, pool: str, depth: int) -> slice:
        """The tokens behind the last block that `pool` names."""
        start = self.num_prefix
        present = self.keep or self.blocks.stop == depth
        end = start + self.length if present else start
        return {
            "image": slice(end, None),
            "prompt": slice(start, end),
            "image+prompt": slice(start, None),
        }[pool]


def attach(model: Model, config: PromptConfig, rngs: nnx.Rngs) -> None:
    """Add the prompts as an edit; the backbone itself stays as it is."""
    edit = Prompts(model, config, rngs)
    model.add_edit("prompt", edit)
    if config.init in FROM_IMAGES and not hasattr(model.backbone, "cls"):
        raise UserError(
            f"method.init {config.init!r} needs a backbone with a CLS token; "
            f"{type(model.backbone).__name__} has none"
        )
    if config.pool != "original":
        model.reads = edit.reads(config.pool, len(model.backbone.blocks))


def not_dense(config: PromptConfig) -> str | None:
    """Why no head can read the tokens of the image with these options."""
    if config.pool != "original":
        return f"method.pool={config.pool} chooses tokens for one"
    if config.overwrite:
        return "method.overwrite puts prompts in place of its tokens"
    if config.init in FROM_IMAGES:
        return f"method.init={config.init} takes the labels or CLS tokens of images"
    return None


def group(path: Path, variable: nnx.Variable, config, model: Model):
    """Prompts, their projection and the head are trained.

    Untrained prompts are of the trial all the same, not of the frozen network that all
    trials share: each seed draws its own, and its export carries them.
    """
    if path[:2] == ("edits", "prompt"):
        return "trainable" if getattr(config, "trained", True) else "stats"
    return "trainable" if path[0] == "head" else "frozen"


def initialise(model: Model, config: PromptConfig, batches: Iterable) -> None:
    """Start from CLS tokens of the training images (paper, appendix: initialisation).

    The tokens are those of the residual stream, where the prompts go; the public code
    (`vit_ablations.py:148-200`) reads them from a file that no script of it writes.
    """
    if config.init not in FROM_IMAGES:
        return
    tokens, labels = _cls_tokens(model.backbone, batches)
    edit = model.edits["prompt"]
    if config.init == "prototypes":
        classes = model.head.out_features
        if config.length != classes:
            raise UserError(
                f"method.init 'prototypes' gives one token per class: it needs "
                f"method.length={classes}, not {config.length}"
            )
        mean = tokens.mean(axis=0)  # where a class has no training image
        of_class = [tokens[labels == c] for c in range(classes)]
        tokens = np.stack([x.mean(axis=0) if len(x) else mean for x in of_class])
    if config.length > len(tokens):
        raise UserError(
            f"method.length {config.length} with method.init {config.init!r} needs as "
            f"many training images; there are {len(tokens)}"
        )
    for layer, prompt in enumerate(edit.prompts.tokens):
        block = edit.blocks[layer] if config.init == "cls_layers" else -1
        prompt[...] = jnp.asarray(tokens[: config.length, block], prompt.dtype)


def _cls_tokens(
    backbone: Backbone, batches: Iterable
) -> tuple[Float[np.ndarray, "n L D"], Int[np.ndarray, " n"]]:
    """The CLS token of every image after every block of the plain backbone."""

    @jax.jit
    def run(params, images):
        plain = nnx.merge(graphdef, params)
        x, seen = plain.embed(images), []
        for block in plain.blocks:
            x = block(x)
            seen.append(x[:, 0])
        return jnp.stack(seen, axis=1)

    graphdef, params = nnx.split(backbone)
    tokens, labels = [], []
    for images, some in batches:
        tokens.append(np.asarray(run(params, images), np.float32)[: len(some)])
        labels.append(some)
    return np.concatenate(tokens), np.concatenate(labels)


def _projection(stored: int, width: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Kaiming normal by fan out; the bias as PyTorch's default (`vit.py:44-50`)."""
    bound = 1 / math.sqrt(stored)

    def bias_init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    kernel_init = nnx.initializers.variance_scaling(2, "fan_out", "normal")
    return nnx.Linear(
        stored, width, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs
    )
