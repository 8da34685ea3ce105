"""A filter tried on the archive before it goes live, as things were known then."""
