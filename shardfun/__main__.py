"""``python -m shardfun``: the same as the command ``shardfun``."""

from __future__ import annotations

import sys

from shardfun.cli.main import main

# Processes that are spawned from this one import this module again, under another name.
if __name__ == "__main__":
    sys.exit(main())
