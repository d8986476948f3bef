"""`python -m neurovar` is the command `neurovar`."""

from neurovar.cli.app import main

if __name__ == "__main__":
    main()
