"""`python -m extended_dlc.refresh`, for a checkout without the command on its path."""

from extended_dlc.refresh import refresh

if __name__ == "__main__":
    refresh()
