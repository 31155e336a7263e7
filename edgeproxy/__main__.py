"""`python -m edgeproxy` and the `edgeproxy` command."""

from edgeproxy.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
