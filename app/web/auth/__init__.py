"""Who asks: a strategy for each value of `AUTH`, behind one interface."""
