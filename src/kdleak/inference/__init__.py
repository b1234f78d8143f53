"""Forward passes and decoding with a language model."""
