"""Accuracy of networks × noise seeds × conditions, stimulus by stimulus."""
