"""A node inside a program: ``Supervisor`` for Trio and asyncio, ``BlockingSupervisor`` for the rest. docs/EMBEDDING.md is the guide.

In reading order: ``supervisor`` and ``blocking`` (the two fronts), ``handle`` (what the user has), ``calls`` (what is asked of the
node), ``node_thread`` (where it runs), ``trio_side`` and ``aio`` (how an event loop waits for it), ``application`` and ``settings``
(what it is made from).
"""

from shardfun.embedding.blocking import BlockingNode, BlockingRecords, BlockingSupervisor
from shardfun.embedding.handle import EgressRecords, NodeHandle
from shardfun.embedding.supervisor import Supervisor

__all__ = ["BlockingNode", "BlockingRecords", "BlockingSupervisor", "EgressRecords", "NodeHandle", "Supervisor"]
