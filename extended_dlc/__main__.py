"""`python -m extended_dlc`: the command line, where the program `extended-dlc` is not on the path."""

from extended_dlc.cli import main

main(prog_name="extended-dlc")
