"""The command `neurovar`: one file a command, the quickstart and the report."""
