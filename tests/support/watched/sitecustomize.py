"""Python reads this at its start where the folder is on PYTHONPATH, in every process of a test's pipeline.

A process that binds a socket leaves a line in WATCHED_SOCKETS (urllib3 binds one for a moment as it is imported, to see
whether the machine has IPv6; that one is let pass). A stage of DVC leaves a file in WATCHED_STAGES: what it has read.
"""

import os
import sys


def _watch(event: str, args: tuple) -> None:
    if event == "socket.bind" and not _is_probe():
        with open(os.environ["WATCHED_SOCKETS"], "a") as log:
            log.write(f"{sys.argv} {args[1:]}\n")


def _is_probe() -> bool:
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_has_ipv6":
            return True
        frame = frame.f_back
    return False


if "WATCHED_SOCKETS" in os.environ:
    sys.addaudithook(_watch)
if "WATCHED_STAGES" in os.environ and "DVC_STAGE" in os.environ:
    import stage_watch

    stage_watch.start(os.environ["WATCHED_STAGES"])
