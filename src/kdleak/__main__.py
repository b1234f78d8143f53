"""`python -m kdleak` is `kdleak`."""

from kdleak.cli.main import main

main()
