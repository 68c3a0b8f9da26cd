"""Processes that work on one thing together: what they send each other, how they are started."""

from __future__ import annotations

from musiva.comm.group import Group, Lone, TorchGroup
from musiva.comm.launch import joined, launch
from musiva.comm.link import Link, Service, address_of
from musiva.comm.meter import LinkFigures, Meter
from musiva.comm.threads import ThreadGroup, in_threads

__all__ = [
    "Group",
    "Link",
    "LinkFigures",
    "Lone",
    "Meter",
    "Service",
    "ThreadGroup",
    "TorchGroup",
    "address_of",
    "in_threads",
    "joined",
    "launch",
]
