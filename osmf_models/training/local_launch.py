"""torchrun for processes of one machine: they meet at 127.0.0.1, and nothing listens at any other address.

    python -m osmf_models.training.local_launch --nproc-per-node 2 -m MODULE ...

Torch's own rendezvous listens on every address of the machine, whatever `--local-addr` says. Options are torchrun's.
"""

from __future__ import annotations

import socket
import sys

from torch.distributed import TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousInfo,
    RendezvousParameters,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.run import main

_HOST = "127.0.0.1"
_NAME = "loopback"
_TIMEOUT_SECONDS = 600


class LoopbackRendezvous(StaticTCPRendezvous):
    """One agent, whose store listens at a free port of 127.0.0.1 alone."""

    def __init__(self, parameters: RendezvousParameters) -> None:
        super().__init__(_HOST, 0, 0, 1, parameters.run_id, _TIMEOUT_SECONDS)

    def get_backend(self) -> str:
        """Returns the name that torchrun knows it by."""
        return _NAME

    def next_rendezvous(self) -> RendezvousInfo:
        """Returns where the processes meet; the first call opens the port."""
        if self._store is None:
            listener = socket.create_server((_HOST, 0))
            self.master_port = listener.getsockname()[1]
            self._store = TCPStore(
                _HOST,
                self.master_port,
                is_master=True,
                timeout=self.timeout,
                wait_for_workers=False,
                multi_tenant=True,
                master_listen_fd=listener.detach(),
            )
        return super().next_rendezvous()


if __name__ == "__main__":
    rendezvous_handler_registry.register(_NAME, LoopbackRendezvous)
    main(["--rdzv-backend", _NAME, "--rdzv-endpoint", f"{_HOST}:0", "--local-addr", _HOST, *sys.argv[1:]])
