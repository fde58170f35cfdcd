"""What ``tools/soak`` is made of: the state that it keeps, the pieces of work that it hands out, and its report."""
