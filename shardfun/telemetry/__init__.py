"""What the node says of itself: log lines, and what must not be in them."""
