"""The words of the service and their rules. No I/O: nothing here knows Redis, HTTP or a model server."""
