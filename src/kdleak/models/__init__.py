"""Families, from-scratch bases and checkpoints."""
