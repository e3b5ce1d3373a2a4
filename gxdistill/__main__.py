"""`python -m gxdistill`: the command line."""

from gxdistill.cli.main import main

if __name__ == "__main__":  # Processes that `prepare` spawns import this, too.
    main()
