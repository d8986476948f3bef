"""What a noise is compared with: baselines of equal trace, retrained networks, equal clean accuracy."""
