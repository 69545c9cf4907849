"""The whole deployment on a real engine; on request only."""
