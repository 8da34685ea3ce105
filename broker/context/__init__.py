"""What is at an alert's place in the sky."""

from broker.context.packet import ABS_GAL_B, CONTEXT_NAMES, COUNTERPART_COLOURS, context_matrix

__all__ = ["ABS_GAL_B", "CONTEXT_NAMES", "COUNTERPART_COLOURS", "context_matrix"]
