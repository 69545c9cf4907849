"""All that knows the model server: an OpenAI-compatible chat-completions endpoint, asked and read as a stream."""
