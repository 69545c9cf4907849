"""The cost of a token, measured as ratios in one run: see `run.py`."""
