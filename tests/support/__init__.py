"""What several tests use: a store, a scripted upstream, a reader of streams."""
