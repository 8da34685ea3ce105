"""Whole runs under many faults drawn from a seed, and the judgement of what came out.

What belongs here drives and judges `broker run` from outside, by Kafka's log and Redis alone: what is sent
(feed), what befalls the servers, the workers and the wire (schedule, run), what a subscriber sees meanwhile
(subscriber), and what is in the log at the end against what must be there (log, judge). Nothing here imports
the part of the product that it judges, but for the schemas in `control` and one pipeline without faults.
"""
