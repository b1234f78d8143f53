"""The one training loop, what it is fed and how it goes on after a stop."""
