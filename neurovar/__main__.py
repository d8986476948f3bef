"""`python -m neurovar` is the command `neurovar`."""

from neurovar.cli.app import main

# Worker processes import this module again, and must not run the command.
if __name__ == "__main__":
    main()
