"""Defences: what keeps the teacher's private data from its student, each a file of `defences/`."""
