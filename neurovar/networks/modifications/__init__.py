"""Naturalistic image modifications: ImageNet-C's corruptions and four transformations, batched, on any device.

Images are (batch, channel, row, column), floating point in [0, 1], with 1 or 3 channels. Nothing is written in place.
What is random is drawn image by image on the generator's device and then moved to the images, so that it depends
neither on the batch size nor on where the images are. Constants and results of the corruptions are those of the package
`imagecorruptions`, without its rounding of results to 8 bits; those of the transformations are torchvision's.

References: Hendrycks & Dietterich 2019, arXiv:1903.12261; Preble et al. 2026, arXiv:2606.13801.
"""
