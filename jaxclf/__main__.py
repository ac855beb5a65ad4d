"""`python -m jaxclf`: the command line without an installation."""

from jaxclf.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
