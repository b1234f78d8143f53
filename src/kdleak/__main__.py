"""`python -m kdleak` is `kdleak`."""

from kdleak.cli import main

main()
