"""The specification of the service, as tests."""
