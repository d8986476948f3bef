"""Low-rank-plus-diagonal covariance learned online by synapses that each see only the two neurons they connect."""

from dataclasses import dataclass
from typing import NoReturn, Self

import torch
from torch import Tensor

from neurovar.covariance import LowRankPlusDiagonal
from neurovar.noise.streaming._accumulator import Accumulator, plain_arithmetic
from neurovar.noise.streaming._low_rank import LowRankEstimate, check_rank, check_samples, with_private

# Samples by which the steps are smaller from the start: at η = 2/t the second sample would overwrite the first weights
# wholly, and M, of a single product y yᵀ, would have no inverse.
WARM_UP = 10


@dataclass(kw_only=True, eq=False)
class HebbianNetwork(Accumulator):
    """A Hebbian/anti-Hebbian network whose synapses come to hold the low-rank covariance of its inputs.

    `rank` output neurons receive the input x through feedforward synapses W (rank, units) and inhibit one another
    through lateral synapses M (rank, rank); the activity settles at y = M⁻¹Wx, where dy/dt = Wx − My is 0. Then every
    synapse moves towards the product of its presynaptic and postsynaptic activity:
    Wᵢⱼ ← Wᵢⱼ + η (yᵢxⱼ − Wᵢⱼ), Mᵢⱼ ← Mᵢⱼ + η (yᵢyⱼ − Mᵢⱼ), with η = 2/(t + 10) for sample t (about the mean,
    which takes the first, counted from the second): averages in which recent samples count most, so that the time
    before convergence is forgotten as 1/t². Each input neuron takes off the mean of its own past activity, scaled by
    √((t − 1)/t) so that the rest has the input's covariance, and sums its own variance. But for the time t, nothing
    else is known to any synapse.

    Converged, the filters M⁻¹W are orthonormal and span the leading eigenvectors; M and W are the covariances of the
    outputs with one another and with the inputs, and the shared covariance is WᵀM⁻¹W. On stationary samples in random
    order the subspace error falls as 1/t; for a spectrum without gap after `rank` the last directions converge slowly.
    Unlike those of the other accumulators the result depends on the order of samples, has no error bound, and cannot be
    merged.

    Biases: recent samples count more (as about ¾ of the samples would, all alike), and eigenvalues are too small before
    convergence, which goes to the private variances.

    Parameters
    ----------
    about_zero : bool, optional
        Whether the result is the second moment about zero, divided by n, in place of the covariance about the mean,
        divided by n − 1.
    rank : int
        Number of output neurons.
    seed : int
        Of the first feedforward weights.

    References
    ----------
    Pehlevan, Hu & Chklovskii 2015, doi:10.1162/NECO_a_00745 (the network); Pehlevan, Sengupta & Chklovskii 2018,
    doi:10.1162/neco_a_01018 (these synaptic rules); arXiv:2601.13170 (stable from any start for small η)

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> axis = torch.tensor([0.6, 0.8, 0.0])
    >>> network = HebbianNetwork(rank=1, seed=0)
    >>> network.update(3 * torch.randn(500, 1, generator=g) * axis + torch.randn(500, 3, generator=g))
    >>> learned = network.covariance().factors[:, 0]
    >>> bool((learned @ axis).abs() / learned.norm() > 0.99)
    True
    """

    rank: int
    seed: int

    def _start(self, origin: Tensor, unit_shape: tuple[int, ...]) -> dict[str, Tensor]:
        check_rank(self.rank, len(origin))
        return {
            "feedforward": origin.new_zeros(self.rank, len(origin)),
            "lateral": origin.new_zeros(self.rank, self.rank),
            "variance": torch.zeros_like(origin),
        }

    def _take(self, flat: Tensor) -> None:
        # One at a time: each changes the synapses that the next one meets.
        for sample in flat.split(1):
            super()._take(sample)

    def _add(self, rows: Tensor) -> None:
        # Of a batch of one sample the deviation from its own mean is 0: the last row, √((t − 1)/t) (x − m), is all.
        x, feedforward, lateral = rows[-1], self._sums["feedforward"], self._sums["lateral"]
        if not lateral.any():
            if not x.any():  # as the first sample about its own mean
                return
            self._connect(x)
        # Where the activity settles: dy/dt = Wx − My = 0.
        y = torch.linalg.solve(lateral, feedforward @ x)
        time = self.n_samples if self.about_zero else self.n_samples - 1
        step = 2 / (time + WARM_UP)
        feedforward.addr_(y, x, beta=1 - step, alpha=step)
        lateral.addr_(y, y, beta=1 - step, alpha=step)
        self._sums["variance"].addcmul_(x, x)

    def _connect(self, x: Tensor) -> None:
        """Random filters of about unit length, at the scale of the first input."""
        power = x.square().mean()
        generator = torch.Generator().manual_seed(self.seed)
        filters = torch.randn(self.rank, len(x), generator=generator, dtype=x.dtype) / len(x) ** 0.5
        self._sums["feedforward"].copy_(power * filters.to(x.device))
        self._sums["lateral"].copy_(power * torch.eye(self.rank, dtype=x.dtype, device=x.device))

    def merge(self, other: Self) -> NoReturn:
        """Refused: what two networks have learned does not add up.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("expected sums that add up, got synapses of a HebbianNetwork; merge LowRankAccumulators")

    def covariance(self) -> LowRankPlusDiagonal:
        """The covariance of `estimate`."""
        return self.estimate().covariance

    def estimate(self) -> LowRankEstimate:
        """The shared covariance that the synapses hold, and of each unit the variance that it leaves over.

        Returns
        -------
        LowRankEstimate
            Factors and private variances.

        Raises
        ------
        ValueError
            For fewer than rank + 1 samples (about zero: rank).
        """
        divisor = check_samples(self, self.rank)
        with plain_arithmetic(self._origin.device):
            factors = shared_factors(self._sums["feedforward"], self._sums["lateral"])
            return with_private(factors, self._sums["variance"] / divisor)


def shared_factors(feedforward: Tensor, lateral: Tensor) -> Tensor:
    """F (units, rank) with F Fᵀ = Wᵀ M⁺ W and orthogonal columns, largest first; what is small is float64."""
    # With M = V Λ Vᵀ and R = V Λ^(−1/2), Wᵀ M⁻¹ W = (Wᵀ R)(Wᵀ R)ᵀ; turned by the eigenvectors of its small Gram matrix
    # Rᵀ W Wᵀ R, the columns of Wᵀ R are orthogonal. Directions that M has lost to rounding get no weight: 1/√∞ = 0.
    values, vectors = torch.linalg.eigh((lateral + lateral.mT).double() / 2)
    tolerance = len(lateral) * torch.finfo(lateral.dtype).eps * values[-1]
    root = vectors * torch.where(values > tolerance, values, torch.inf).rsqrt()
    gram = root.mT @ (feedforward @ feedforward.mT).double() @ root
    turned = root @ torch.linalg.eigh(gram).eigenvectors.flip(1)
    return feedforward.mT @ turned.to(feedforward.dtype)
