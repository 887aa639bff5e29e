"""`python -m codesieve` is the same as `codesieve`."""

from .cli import main

if __name__ == "__main__":
    main()
