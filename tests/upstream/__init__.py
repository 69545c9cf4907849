"""The specification of the upstream: decoder, client and demo model."""
