"""An export that PyTorch opens: three files beside `tuned.safetensors`.

vpt_torch.py                 puts what was tuned into a network of timm
torch.json                   which network, the names of its tensors, preprocessing
backbone_timm.safetensors    the frozen weights with timm's names, float32
"""

import importlib.resources

from safetensors.numpy import save_file

from vpt_jax import backbones
from vpt_jax.errors import UserError
from vpt_jax.exchange import timm_models
from vpt_jax.experiment import NetworkChoice
from vpt_jax.network import Network
from vpt_jax.objectives import classification
from vpt_jax.serving.classifier import Classifier
from vpt_jax.storage.files import whole, write_json, write_text
from vpt_jax.storage.paths import Folder
from vpt_jax.types import flatten

FORMAT = 1
CODE, ABOUT, BACKBONE = "vpt_torch.py", "torch.json", "backbone_timm.safetensors"


def check(network: NetworkChoice) -> None:
    """Refuse before training what `write` could not write.

    Raises:
        UserError: See there.
    """
    backbone = network.backbone
    _check(network, backbones.get_config(backbone.name, backbone.image_size))


def _check(network: Network | NetworkChoice, config) -> None:
    """Refuse a backbone, of `config`, or what is tuned on it.

    Raises:
        UserError: A method, a kind of task or a backbone that the file does not know.
    """
    timm_models.described(config)
    if "sidetune" in [choice.name for choice in network.method]:
        raise UserError("method sidetune cannot be written for PyTorch; others can")
    if network.objective is not classification:
        raise UserError("only classifiers can be written for PyTorch")


def write(model: Classifier, directory: Folder) -> list[Folder]:
    """Write the three files beside an export.

    Args:
        model: The export, loaded in float32.
        directory: Of the export.

    Returns:
        The files.

    Raises:
        UserError: It cannot be written.
    """
    network, pretrained = model.network, model.network.pretrained
    _check(network, pretrained.config)
    preset = network.preset
    write_json(
        directory / ABOUT,
        {
            "format": FORMAT,
            **timm_models.described(pretrained.config),
            "preprocessing": {
                "size": network.image_size,
                "resize": preset.resize,
                "shorter": preset.shorter,
                "mean": preset.mean,
                "std": preset.std,
            },
        },
    )
    tensors = timm_models.state_dict(pretrained.config, flatten(pretrained.params))
    with whole(directory / BACKBONE) as temporary:
        save_file(tensors, temporary)
    code = importlib.resources.files("vpt_jax") / "exchange" / CODE
    write_text(directory / CODE, code.read_text())
    return [directory / name for name in (CODE, ABOUT, BACKBONE)]
