"""Joins store and upstream: asking, running, stopping, recovering and draining answers."""
