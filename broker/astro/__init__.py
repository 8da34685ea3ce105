"""Physical constants and conversions: the only home of each."""
