"""HTTP in, HTTP out: handlers, dialects, owners, problems. Knows no Redis and no model server."""
