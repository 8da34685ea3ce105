"""Whether the stream is still what it was, and what the models learnt from: counts night by night."""
