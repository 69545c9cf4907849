"""All that knows Redis: keys, scripts, the journal, the readers of event logs, and the embedded server."""
