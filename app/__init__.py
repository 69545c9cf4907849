"""Parley: a chat backend in one small service; an answer belongs to the store, not to the connection."""
