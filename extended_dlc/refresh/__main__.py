"""`python -m extended_dlc.refresh`, for a checkout where the command is not installed."""

from extended_dlc.refresh import refresh

if __name__ == "__main__":
    refresh()
