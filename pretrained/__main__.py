"""Prints where a model that comes with Cleanplate lies: python -m pretrained generic."""

import sys

from pretrained import PATHS

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PATHS:
        sys.exit(f"error: name one of {' and '.join(PATHS)}: python -m pretrained generic")
    print(PATHS[sys.argv[1]])
