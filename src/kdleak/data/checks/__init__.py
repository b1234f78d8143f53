"""The gate: what must hold of the roles before anything is trained."""
