"""Tests of the rules that need no I/O."""
