"""The edge to Kafka: how clients are configured, which topics there are, what was delivered, what is read.

What belongs here talks to Kafka and knows nothing of alerts. What goes into a record, and what becomes of one
that was read, belongs to the stages.
"""
