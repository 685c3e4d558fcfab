"""`python -m chronovisor` is the command `chronovisor`."""

import sys

from chronovisor.cli import main

if __name__ == "__main__":
    sys.exit(main())
