"""The study: its results, findings and page."""
