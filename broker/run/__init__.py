"""The running service: its processes, slots and limits, and what is done with one that fails or dies.

What belongs here decides about processes, partitions and time. Nothing here judges an alert, and what judges
alerts knows nothing of processes.
"""
