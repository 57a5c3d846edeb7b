"""The command `rrm` from its first moment: told to end while it imports, it ends as it does later, not as if killed."""

import signal
import sys

from tune.modules import reading_modules
from tune.signals import ENDING, end_here


def main() -> int:
    """Run a command; returns its exit code."""
    for number in (signal.SIGINT, *ENDING):
        if signal.getsignal(number) is not signal.SIG_IGN:  # SIGHUP under nohup
            signal.signal(number, end_here)
    with reading_modules():
        from launch import cli  # which takes a second

    if signal.getsignal(signal.SIGINT) is end_here:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # commands have their own ends for Ctrl-C
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
