"""Token statistics, attacks and the statistics of a leak."""
