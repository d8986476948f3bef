"""Whether a claim of robustness is to be believed: the checks that it needs."""
