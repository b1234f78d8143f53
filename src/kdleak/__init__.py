"""kdleak: what a distilled student gives away of its teacher's private training data."""

__version__ = "0.1.0"
