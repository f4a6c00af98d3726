"""The command `headgate`: arguments in, exit code out."""

import sys


def main() -> int:
    """Run the command line. Returns the exit code."""
    sys.stderr.write("headgate: no command yet\n")
    return 2
