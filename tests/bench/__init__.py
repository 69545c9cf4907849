"""What a delivered token costs, measured beside yardsticks in the same run: `make bench`; see `run.py`."""
