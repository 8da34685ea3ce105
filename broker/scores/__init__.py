"""Features to scores: class probabilities and an anomaly score, from a versioned bundle of files."""
