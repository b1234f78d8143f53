"""params.yaml: its sections, and how it is read."""
