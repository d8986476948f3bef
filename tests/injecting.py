"""Small networks, seeds and a statistical check, for the tests of injected noise."""

import torch
from seeds import generator
from torch import Tensor, nn

from neurovar.covariance import Covariance, Dense, Diagonal, GainModulated, Kronecker, LowRankPlusDiagonal, MeanShift

STANDARD_ERRORS = 5


def covariances(n: int) -> dict[str, Covariance]:
    """One of every type, over an even number of units."""
    torch_rng = generator(7)
    factors = torch.randn(n, 2, generator=torch_rng)
    private = torch.rand(n, generator=torch_rng) + 0.1
    states = torch.rand(5, n, generator=torch_rng)
    diagonal, low_rank = Diagonal(private), LowRankPlusDiagonal(factors, private)
    gain = GainModulated(torch.tensor(0.3), private, torch.tensor(1.5), states)
    return {
        "diagonal": diagonal,
        "dense": Dense(factors @ factors.T + 0.5 * torch.diag(private)),
        "low_rank": low_rank,
        "kronecker": Kronecker(Dense(torch.tensor([[2.0, 0.9], [0.9, 1.0]])), Diagonal(private[: n // 2])),
        "gain": gain,
        "shifted": gain + MeanShift(private),
    }


def identity(*, training: bool = False) -> nn.Sequential:
    return nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity()).train(training)


def linear(seed: int = 0) -> nn.Sequential:
    """Three linear layers, 3 → 4 → 4 → 2, in float64."""
    torch_rng = generator(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)).double().eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch_rng, dtype=torch.float64)
    return model


class Returns(nn.Module):
    """Gives what a function of its input gives."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def assert_covariance(samples: Tensor, expected: Tensor) -> None:
    """Samples (n, units) have mean 0 and this covariance, within 5 standard errors of each number."""
    expected, n = expected.double(), len(samples)
    variances = expected.diagonal()
    error = samples.double().T @ samples.double() / n - expected
    bound = STANDARD_ERRORS * ((torch.outer(variances, variances) + expected**2) / n).sqrt()
    assert (error.abs() <= bound).all(), (error.abs() / bound).max()
    assert (samples.double().mean(0).abs() <= STANDARD_ERRORS * (variances / n).sqrt()).all()


class Bottleneck(nn.Module):
    """The residual block of a ResNet-50 (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(width_in, width, 1, 1),
            nn.ReLU(inplace=True),
            *convolution(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *convolution(width, 4 * width, 1, 1),
        )
        self.skip = nn.Identity()
        if stride > 1 or width_in != 4 * width:
            self.skip = nn.Sequential(*convolution(width_in, 4 * width, 1, stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.skip(x))


def convolution(width_in: int, width: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(width_in, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width)


def resnet50() -> nn.Sequential:
    """Random weights, in eval mode: stem, layer1 to layer4 and head, 25.6 million parameters."""
    model = nn.Sequential()
    model.stem = nn.Sequential(*convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
    width_in = 64
    for i, n_blocks in enumerate((3, 4, 6, 3)):
        width, stride = 64 * 2**i, 1 if i == 0 else 2
        blocks = [Bottleneck(width_in, width, stride), *(Bottleneck(4 * width, width, 1) for _ in range(n_blocks - 1))]
        model.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        width_in = 4 * width
    model.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width_in, 1000))
    return model.eval()
