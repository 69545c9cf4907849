"""The browser client, run by Node."""
