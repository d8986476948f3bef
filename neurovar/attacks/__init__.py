"""Adversarial attacks that know the network is noisy: gradients averaged over noise draws."""

from neurovar.attacks._gradient import NO_NOISE, expected_loss, fgm, pgd

__all__ = ["NO_NOISE", "expected_loss", "fgm", "pgd"]
