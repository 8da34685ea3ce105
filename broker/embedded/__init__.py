"""A real Kafka and a real Valkey on this machine, from Python wheels alone.

`owned` servers belong to a `with` block and die with their process; `services` run in the background until
`services.down`. Both listen on free ports of the loopback interface only, and a server counts as started
when it answers and has proved to be the one that was started.
"""

from broker.embedded.folders import data_dir
from broker.embedded.owned import Addresses, OwnedServers, owned
from broker.embedded.services import (
    ServerStatus,
    Services,
    ServicesStatus,
    attach_or_start,
    down,
    status,
    up,
)

__all__ = [
    "Addresses",
    "OwnedServers",
    "ServerStatus",
    "Services",
    "ServicesStatus",
    "attach_or_start",
    "data_dir",
    "down",
    "owned",
    "status",
    "up",
]
