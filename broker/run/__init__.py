"""What a running service does besides judging: processes, slots, limits, and what follows when one dies.

Nothing here knows what an alert is; what judges alerts knows nothing of processes.
"""
