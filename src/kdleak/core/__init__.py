"""What every room stands on: errors, files, paths, seeds, progress, several processes."""
