"""What `broker bench` measures, one file a verb."""
