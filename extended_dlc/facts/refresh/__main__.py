"""`python -m extended_dlc.facts.refresh`, for a checkout without the command on its path."""

from extended_dlc.facts.refresh import refresh

if __name__ == "__main__":
    refresh()
