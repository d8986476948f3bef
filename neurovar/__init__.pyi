from . import covariance as covariance
from . import networks as networks
from . import noise as noise
from . import plotting as plotting
from . import responses as responses
from . import robustness as robustness
from . import statistics as statistics
from .covariance import Covariance as Covariance
from .covariance import Dense as Dense
from .covariance import Diagonal as Diagonal
from .covariance import GainModulated as GainModulated
from .covariance import Kronecker as Kronecker
from .covariance import LowRankPlusDiagonal as LowRankPlusDiagonal
from .networks import NoisyModule as NoisyModule
from .networks import NoisyNetwork as NoisyNetwork
from .networks import inject as inject

__version__: str
