"""The supervisor: starts shard processes, watches them, coordinates checkpoints. It handles no messages of the application.

In reading order: ``node`` (the whole), ``pool`` (processes, warm and assigned), ``liveness`` (who counts as dead), ``disk`` (what is
written durably), ``postmortem`` (what a process died of), ``leftovers`` (what a killed node left), ``letters`` (dead letters that
somebody asks for), ``queries`` (state that somebody asks for), ``status`` (what it says of itself), ``ask`` (how other processes ask).
"""

from shardfun.supervisor.ask import ask_for_letters
from shardfun.supervisor.node import Node
from shardfun.supervisor.status import query_status

__all__ = ["Node", "ask_for_letters", "query_status"]
