"""Sources, roles, overlap, checks, encoding and batching of records."""
