"""Real processes, real signals: what users keep when something dies."""
