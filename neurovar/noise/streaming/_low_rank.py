"""Low-rank-plus-diagonal covariance of any number of units from one pass: frequent directions."""

from dataclasses import dataclass
from math import ceil
from typing import Self, cast

import torch
from torch import Tensor

from neurovar.covariance import LowRankPlusDiagonal
from neurovar.noise.streaming._accumulator import Accumulator, plain_arithmetic
from neurovar.noise.streaming._exact import squares

# Rows of the sketch for each factor: what shrinks, the last fifth, is then never among the factors.
SKETCH_PER_RANK = 2
# Part of the rows that shrink (Desai, Ghashami & Phillips 2016). Shrinking all of them, as first published, takes from
# the leading directions too; shrinking the last fifth alone leaves these as they are, for a bound five times as large.
SHRUNK_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class LowRankEstimate:
    """Shared and private noise.

    Parameters
    ----------
    covariance : LowRankPlusDiagonal
        Factors F from the leading eigenpairs, and of each unit the variance that F leaves over.
    clamped : float
        Total of the private variances that came out negative and were set to 0, by which the trace is too large.

    Examples
    --------
    >>> from neurovar.noise import HebbianNetwork
    >>> network = HebbianNetwork(rank=1, seed=0)
    >>> network.update(torch.randn(100, 3, generator=torch.Generator().manual_seed(0)))
    >>> network.estimate().clamped
    0.0
    """

    covariance: LowRankPlusDiagonal
    clamped: float


@dataclass(frozen=True, eq=False)
class BoundedEstimate(LowRankEstimate):
    """A `LowRankEstimate` that is known to be near the sample covariance C.

    Parameters
    ----------
    covariance : LowRankPlusDiagonal
        Factors F from the leading eigenpairs, and of each unit the variance that F leaves over.
    clamped : float
        Total of the private variances that came out negative and were set to 0, by which the trace is too large.
    error_bound : float
        An upper bound, up to rounding and whatever the data, of ‖C − FFᵀ‖ and of ‖C − covariance‖ in the spectral norm.
        No rank-r matrix F can be nearer to C than λ_{r+1}(C). The Frobenius norms of both are at most the total private
        variance, as C − FFᵀ has no negative eigenvalue.

    Examples
    --------
    >>> noise = LowRankAccumulator(rank=1)
    >>> noise.update(torch.randn(100, 1, generator=torch.Generator().manual_seed(0)) @ torch.ones(1, 5))
    >>> noise.estimate().error_bound < 1e-5
    True
    """

    error_bound: float


@dataclass(kw_only=True, eq=False)
class LowRankAccumulator(Accumulator):
    """Leading eigenvectors and private variances in O(units · sketch_size) memory, with a known error.

    Keeps every unit's variance exactly, and a sketch B (sketch_size ℓ, units) of the scatter S by frequent directions:
    after each batch (or about ℓ rows of it) the ℓ leading directions of B and the new rows stay, and the last fifth of
    these shrinks by the first eigenvalue δ that is left out. Then 0 ≼ S − BᵀB ≼ Δ·I, where Δ = Σ δ is kept and
    Δ ≤ Σ_{i > k} λᵢ(S) / (ℓ/5 − k) for every k < ℓ/5. F is made of the `rank` leading rows, and
    ‖C − FFᵀ‖₂ ≤ error_bound = (Δ + λ_{rank + 1}(BᵀB)) / (n − 1). As FFᵀ never exceeds C, private variances are not
    negative but for rounding.

    Mean, variances and trace do not depend on batches or workers; the factors do, as little as the bound says: no
    randomness is involved. Updates cost least in batches of about sketch_size samples (8·units·ℓ multiplications and
    additions a sample), most for single ones (2·units·ℓ²).

    Biases: eigenvalues are too small by what the sketch lost, at most Δ/(n − 1), which goes to the private variances;
    as eigenvalues of a *sample* covariance the largest are too large where samples are few for the units; and being
    those of C, not of its shared part, they hold some private variance (factor analysis would not). Divided by n − 1
    (about zero: n).

    Parameters
    ----------
    about_zero : bool, optional
        Whether the result is the second moment about zero, divided by n, in place of the covariance about the mean,
        divided by n − 1.
    rank : int
        Number of factors.
    sketch_size : int, optional
        Rows of the sketch, more than `rank`; by default 2 × rank. ‖C − QQᵀC‖_F of the factors' space Q was then within
        1 % of the exact eigenvectors' for spectra λₙ ∝ n^−α with α of 0.5, 1 and 2.

    References
    ----------
    Ghashami, Liberty, Phillips & Woodruff 2016, doi:10.1137/15M1009718 (frequent directions and their merging);
    Desai, Ghashami & Phillips 2016, arXiv:1501.06561 (shrinking only the last directions)

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> shared = torch.randn(2, 50, generator=g)
    >>> noise = LowRankAccumulator(rank=2)
    >>> for _ in range(20):
    ...     noise.update(torch.randn(32, 2, generator=g) @ shared + 0.1 * torch.randn(32, 50, generator=g))
    >>> estimate = noise.estimate()
    >>> estimate.covariance.factors.shape, estimate.error_bound < 0.01 * estimate.covariance.trace()
    (torch.Size([50, 2]), True)
    """

    rank: int
    sketch_size: int | None = None

    def __post_init__(self) -> None:
        if self.sketch_size is None:
            self.sketch_size = SKETCH_PER_RANK * self.rank
        if not 1 <= self.rank < self.sketch_size:
            raise ValueError(f"expected a rank from 1 to below the sketch size {self.sketch_size}, got {self.rank}")

    def _start(self, origin: Tensor, unit_shape: tuple[int, ...]) -> dict[str, Tensor]:
        check_rank(self.rank, len(origin))
        return {
            "sketch": origin.new_zeros(cast(int, self.sketch_size), len(origin)),
            "variance": torch.zeros_like(origin),
            "lost": origin.new_zeros(()),
        }

    def _add(self, rows: Tensor) -> None:
        self._sums["variance"] += squares(rows)
        self._sketch(rows)

    def _add_sums(self, other: Self) -> None:
        self._sums["variance"] += other._sums["variance"]
        self._sums["lost"] += other._sums["lost"]
        self._sketch(other._sums["sketch"])

    def _sketch(self, rows: Tensor) -> None:
        # About as many rows as the sketch has: the eigendecomposition costs (ℓ + rows)³, the products units · ℓ · rows.
        for block in rows.tensor_split(max(1, round(len(rows) / len(self._sums["sketch"])))):
            self._sums["sketch"], lost = shrunk(self._sums["sketch"], block)
            self._sums["lost"] += lost

    def covariance(self) -> LowRankPlusDiagonal:
        """The covariance of `estimate`."""
        return self.estimate().covariance

    def estimate(self) -> BoundedEstimate:
        """Factors and private variances, with what was clamped and how far they are from the sample covariance.

        Returns
        -------
        BoundedEstimate
            Factors and private variances, and how far they are from the sample covariance.

        Raises
        ------
        ValueError
            For fewer than rank + 1 samples (about zero: rank).
        """
        divisor = check_samples(self, self.rank)
        sketch, variance = self._sums["sketch"], self._sums["variance"]
        with plain_arithmetic(sketch.device):
            split = with_private(sketch[: self.rank].mT / divisor**0.5, variance / divisor)
            # What the sketch may lack in any direction, and the largest eigenvalue that F leaves in it.
            bound = (self._sums["lost"] + sketch[self.rank].square().sum()) / divisor
        return BoundedEstimate(split.covariance, split.clamped, bound.item())


def shrunk(sketch: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The leading orthogonal directions of a sketch (ℓ, n) and more rows, and the eigenvalue that the last lose.

    The sketch's own rows are orthogonal, so that the products (rows · sketchᵀ), (rows · rowsᵀ) and the mixing of both
    are all that is needed of the n units; what is small is float64.
    """
    # With Z the sketch above the rows, Z = U Σ Vᵀ: the leading directions Σ Vᵀ are Uᵀ Z, and U and Σ² come from the
    # small matrix Z Zᵀ. It is put together from blocks, as the sketch's own is diagonal.
    size = len(sketch)
    across = (rows @ sketch.mT).double()
    own = torch.diag(torch.linalg.vector_norm(sketch, dim=1).double().square())
    gram = torch.cat([torch.cat([own, across.mT], 1), torch.cat([across, (rows @ rows.mT).double()], 1)])
    values, vectors = (ascending.flip(-1) for ascending in torch.linalg.eigh(gram))
    values = values.clamp(min=0)
    # Taking δ = λ_{ℓ+1} from the last kept eigenvalues makes up for dropping those after them, of which none is larger:
    # whatever the data, ZᵀZ exceeds what is kept by at most δ in any direction.
    lost, kept = values[size], values[:size].clone()
    kept[-ceil(SHRUNK_SHARE * size) :] -= lost
    weight = torch.where(values[:size] > 0, kept / values[:size], 0).sqrt()
    # A direction of eigenvalue λ is Uᵀ Z of length √λ; scaled by √(kept / λ) it has the length √kept.
    mixing = (vectors[:, :size] * weight).to(sketch.dtype)
    return (mixing[:size].mT @ sketch).addmm_(mixing[size:].mT, rows), lost


def check_rank(rank: int, n_units: int) -> None:
    if not 1 <= rank <= n_units:
        raise ValueError(f"expected a rank from 1 to the {n_units} units, got {rank}")


def check_samples(accumulator: Accumulator, rank: int) -> int:
    """The degrees of freedom, at least as many as the rank."""
    divisor = accumulator._divisor()
    if divisor < rank:
        least = rank + accumulator.n_samples - divisor
        raise ValueError(f"expected at least {least} samples for rank {rank}, got {accumulator.n_samples}")
    return divisor


def with_private(factors: Tensor, variance: Tensor) -> LowRankEstimate:
    """The factors, and what they leave of each unit's variance."""
    # FFᵀ never exceeds C, so that what is left is not negative but for rounding, or for synapses not yet converged.
    left = variance - factors.square().sum(1)
    clamped = (-left).clamp(min=0).double().sum().item()
    return LowRankEstimate(LowRankPlusDiagonal(factors, left.clamp(min=0)), clamped)
