"""Lower bounds on ε of a training procedure and of what is distilled from it, and the order that they must be in."""
