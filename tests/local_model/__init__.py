"""A real small model that is not ours, for a try and for a test that is run on request only."""
