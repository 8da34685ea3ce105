"""Measuring this machine: every figure comes with the bare library doing the same in the same run."""
