"""What a model repeats of the records: continuations, facts, canaries."""
