"""Certified radii of noisy networks, and bounds on Lipschitz constants."""
