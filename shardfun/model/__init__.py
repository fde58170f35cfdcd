"""The nouns: addresses, slots, message columns, frames, control messages. No decisions, no I/O."""
