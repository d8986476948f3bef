"""Accuracy of noisy networks under modifications and attacks, and whether the evaluation is to be believed."""

from neurovar.robustness._baselines import Baselines, CleanAccuracy, with_baselines
from neurovar.robustness._certificates import certified_accuracy, certify, certify_layer
from neurovar.robustness._checklist import checklist
from neurovar.robustness._conditions import Attack, Clean, Condition, Modified
from neurovar.robustness._diagnostics import Gradients, gradients
from neurovar.robustness._evaluate import evaluate
from neurovar.robustness._honesty import honesty
from neurovar.robustness._lipschitz import lipschitz_bound
from neurovar.robustness._matching import Match, match_clean_accuracy
from neurovar.robustness._networks import NoisyNetwork
from neurovar.robustness._summaries import differences, summarise, worst_case

__all__ = [
    "Attack",
    "Baselines",
    "Clean",
    "CleanAccuracy",
    "Condition",
    "Gradients",
    "Match",
    "Modified",
    "NoisyNetwork",
    "certified_accuracy",
    "certify",
    "certify_layer",
    "checklist",
    "differences",
    "evaluate",
    "gradients",
    "honesty",
    "lipschitz_bound",
    "match_clean_accuracy",
    "summarise",
    "with_baselines",
    "worst_case",
]
