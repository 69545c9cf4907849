"""Tests of the HTTP interface, over a socket."""
