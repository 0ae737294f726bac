"""`python -m hemotorch.cli`."""

from __future__ import annotations

import sys

from hemotorch.cli import main

if __name__ == "__main__":
    sys.exit(main())
