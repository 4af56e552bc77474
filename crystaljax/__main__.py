"""`python -m crystaljax`: the `crystaljax` command."""

from crystaljax.cli import main

if __name__ == "__main__":
    main()
