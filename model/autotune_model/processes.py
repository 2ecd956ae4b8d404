"""How a session's processes connect, and which device and threads each one uses."""

from __future__ import annotations

import os
import socket
import sys

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store, TCPStore  # torch.distributed's source for them, with types

from autotune_model.config import InvalidConfiguration, TrainingConfig

_LOCALHOST = "127.0.0.1"
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def host_store(world_size: int) -> TCPStore:
    """The store where a session's processes meet; its `port` is free, and open to this machine only.

    By itself a store listens on every interface, whatever its host name: so it is given a socket that listens.
    """
    with socket.create_server((_LOCALHOST, 0)) as listening:
        port = listening.getsockname()[1]
        return TCPStore(
            _LOCALHOST,
            port,
            world_size,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listening.detach(),  # the store closes it
        )


def visit_store(port: int, world_size: int) -> TCPStore:
    """The store that rank 0 hosts at `port`."""
    return TCPStore(_LOCALHOST, port, world_size, is_master=False)


def join(store: Store, rank: int, world_size: int, device: torch.device) -> None:
    """Join the process group; returns when all have joined. They talk over the loopback interface alone."""
    os.environ |= {"GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": _LOOPBACK}
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)


def device_of_rank(device: torch.device, rank: int, world_size: int) -> torch.device:
    """The device that a rank computes on: its own on CUDA, a share of the CPU otherwise.

    Raises:
        InvalidConfiguration: there are too few devices, or they cannot communicate.
    """
    if device.type == "mps":
        raise InvalidConfiguration(f'world_size must be 1 on mps; got {world_size}: use device "cpu" or "cuda"')
    if device.type != "cuda":
        return device
    if torch.cuda.device_count() < world_size:
        raise InvalidConfiguration(
            f"world_size must be at most the number of CUDA devices, {torch.cuda.device_count()}; "
            f"got {world_size}: use fewer processes"
        )
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


def share_threads(training: TrainingConfig) -> None:
    """Set this process's intra-op threads to the knob; 0 divides torch's default among the processes."""
    if training.threads:
        torch.set_num_threads(training.threads)
    elif training.world_size > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // training.world_size))
