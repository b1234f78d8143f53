"""Divergences, techniques and the one training loop."""
