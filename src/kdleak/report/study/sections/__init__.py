"""The sections of a study's report, one question each. A section whose inputs are absent says so in one line."""
