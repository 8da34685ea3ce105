"""What people and other programs say of objects, and what it changes."""
