"""Adversarial attacks that know the network is noisy: gradients averaged over noise draws."""
