"""``python -m pgcelery``."""

from __future__ import annotations

from pgcelery.cli.main import main

if __name__ == "__main__":
    main()
