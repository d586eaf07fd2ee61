"""Where processes listen."""

from __future__ import annotations

import psutil


def listening_at(pid: int) -> set[str]:
    """Returns the addresses at which a process and those that it started listen; `::ffff:` before IPv4 is left out."""
    addresses = set()
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return addresses
    for process in family:
        try:
            connections = process.net_connections()
        except psutil.NoSuchProcess:
            continue
        addresses |= {one.laddr.ip.removeprefix("::ffff:") for one in connections if one.status == psutil.CONN_LISTEN}
    return addresses
