"""The command line: `main` (the app, errors), `audit`, `results` (for people), `pipeline` (stages, run by DVC)."""
