"""Python reads this at its start where the folder is on PYTHONPATH: a process that binds a socket leaves a line."""

import os
import sys


def _watch(event: str, args: tuple) -> None:
    if event == "socket.bind":
        with open(os.environ["WATCHED_SOCKETS"], "a") as log:
            log.write(f"{sys.argv} {args[1:]}\n")


if "WATCHED_SOCKETS" in os.environ:
    sys.addaudithook(_watch)
