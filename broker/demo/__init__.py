"""Everything on this machine, and a live view of it."""
