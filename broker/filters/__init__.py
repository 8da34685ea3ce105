"""What users ask of the stream: text to a checked expression, expression to masks."""

from broker.filter import Filter
from broker.filters.compile import CompiledFilter, compile_filter
from broker.filters.evaluate import Evaluation, evaluate
from broker.filters.functions import FILTER_FUNCTIONS, FilterFunction

__all__ = [
    "FILTER_FUNCTIONS",
    "CompiledFilter",
    "Evaluation",
    "Filter",
    "FilterFunction",
    "compile_filter",
    "evaluate",
]
