"""What users of the stream import: decoded records of any of the broker's topics, and their JSON."""

from broker.client.decode import Received, Undecodable
from broker.client.json import as_json, selected
from broker.client.stream import Stream

__all__ = ["Received", "Stream", "Undecodable", "as_json", "selected"]
