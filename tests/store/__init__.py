"""Tests of all that knows Redis, against a real server."""
