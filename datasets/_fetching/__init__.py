"""Declare, find, download and check files."""
