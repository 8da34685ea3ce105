"""The HTTP API of `broker serve`: filters, a read-only schema registry, health and metrics."""

from broker.api.app import create_app
from broker.api.server import ApiServer, serving

__all__ = ["ApiServer", "create_app", "serving"]
