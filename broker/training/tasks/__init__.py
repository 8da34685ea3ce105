"""What is learnt, one task a file: which objects, which classes, which features."""
