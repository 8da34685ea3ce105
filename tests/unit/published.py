"""Packets read back as a subscriber reads them."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from typing import Any

import fastavro

from broker.message import Packet


def opened_packet(packet: Packet, schemas: Mapping[int, str]) -> dict[str, Any]:
    """What a framed packet says, by fastavro with the schemas that were announced."""
    identifier = struct.unpack(">bI", packet.value[:5])[1]
    schema: Any = fastavro.parse_schema(json.loads(schemas[identifier]))
    record: Any = fastavro.schemaless_reader(io.BytesIO(packet.value[5:]), schema, None)
    return dict(record)
