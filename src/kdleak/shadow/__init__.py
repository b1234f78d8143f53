"""Many teachers, each on a half of the records, and their students: attacks and measures that rest on more than one
training."""
