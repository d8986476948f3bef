"""Add covariance-structured noise to layers during forward passes."""
