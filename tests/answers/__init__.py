"""Tests of running, stopping and recovering answers."""
