"""The audit: lists, scores, controls, comparisons, the verdict and its page."""
