"""`python -m emosym`: the `emosym` command."""

from __future__ import annotations

from emosym.cli import main

if __name__ == "__main__":
    main()
