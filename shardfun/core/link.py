"""A link: the two channels between this shard and one peer, in one incarnation.

Sending: at most one encoded frame exists at a time, and only when credit allows it, so a barrier is never behind more than one
frame that was made before it, and never waits for credit. Receiving: a frame is checked and put into the inbox at once, whatever
the shard is doing; barriers and credits act on receipt. Frames leave the inbox for the mailboxes when there is room, and that
is when credit goes back: a slow shard slows its senders' outboxes, not their execution.

Flow control is by absolute counts ("you may have sent 57 frames in all"), so a repeated credit is harmless and a lost one is
found by its sequence number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from shardfun.core.limits import Limits
from shardfun.errors import ChannelLossError
from shardfun.model.frames import Barrier, Credit, Data, Frame, Hello, encode_frame


class Link:
    """One peer, seen from this shard.

    Args:
        window: data frames that may be under way in each direction without being taken from the inbox.
        frame_messages: messages per frame to begin with; it follows the size of frames (see ``adapt``).
    """

    __slots__ = (
        "_credit_due",
        "_credit_limit",
        "_granted",
        "_incarnation",
        "_sequence",
        "_taken",
        "_window",
        "barrier",
        "barriers_ignored",
        "data_received",
        "data_sent",
        "frame_messages",
        "inbox",
        "inbox_messages",
        "last_barrier",
        "peer",
        "received_sequence",
    )

    def __init__(self, peer: int, incarnation: int, window: int, frame_messages: int = 1000) -> None:
        self.peer = peer
        self.frame_messages = frame_messages
        self.barrier: int | None = None
        """The checkpoint whose barrier has to go out before anything else."""
        self.inbox: deque[tuple[int, Data]] = deque()
        """Received frames that are not in the mailboxes yet, with their sender's cut."""
        self.inbox_messages = 0
        self.last_barrier = 0
        self.data_received = self.data_sent = 0
        self.received_sequence = 0
        self.barriers_ignored = 0
        self._incarnation = incarnation
        self._sequence = 0
        self._window = window
        self._credit_limit = self._granted = window
        self._taken = 0
        self._credit_due = False

    # ---- sending --------------------------------------------------------------------------------------------------------
    def next_frame(self, cut: int, blocks: Callable[[], list[Any]] | None) -> bytes | None:
        """The next frame to hand to the transport, ``None`` if there is none now.

        Args:
            cut: the last checkpoint this shard has cut.
            blocks: takes the next blocks from the outbox; ``None`` if nothing shall be sent yet. Called at most once, and
                only when the frame can be made.
        """
        if self.barrier is not None:
            checkpoint, self.barrier = self.barrier, None
            return self._frame(checkpoint, ["barrier", self.data_sent])
        if self._credit_due:
            self._credit_due = False
            self._granted = self._taken + self._window
            return self._frame(cut, ["credit", self._granted])
        if blocks is not None and self.may_send:
            raw = self._frame(cut, blocks())
            self.data_sent += 1
            return raw
        return None

    def take_back(self) -> None:
        """The data frame that was made last is not sent, but made again from fewer messages."""
        self._sequence -= 1
        self.data_sent -= 1

    def adapt(self, size: int, limits: Limits) -> None:
        """Let the number of messages per frame follow their size.

        Args:
            size: bytes of a frame that was made.
        """
        if size > limits.frame_bytes:
            self.frame_messages = max(1, self.frame_messages // 2)
        elif size < limits.frame_bytes // 4 and self.frame_messages < limits.frame_messages:
            self.frame_messages = min(limits.frame_messages, 2 * self.frame_messages)

    def _frame(self, cut: int, body: list[Any]) -> bytes:
        raw = encode_frame(self._incarnation, self._sequence + 1, cut, body)
        self._sequence += 1  # not before: what cannot be encoded is not sent
        return raw

    # ---- receiving ------------------------------------------------------------------------------------------------------
    def receive(self, frame: Frame) -> Barrier | Data | None:
        """Check a frame's place in the channel and act on it; returns what the shard has to act on itself.

        Raises:
            ChannelLossError: a frame is missing, or the peer sent more than it had credit for.
        """
        body = frame.body
        if type(body) is Hello:
            return None
        if frame.sequence != self.received_sequence + 1:
            msg = f"channel from shard {self.peer}: expected frame {self.received_sequence + 1}, got {frame.sequence}"
            raise ChannelLossError(msg)
        self.received_sequence = frame.sequence
        if type(body) is Data:
            if len(self.inbox) >= self._window:
                msg = f"channel from shard {self.peer}: more than {self._window} data frames without credit"
                raise ChannelLossError(msg)
            self.data_received += 1
            self.inbox.append((frame.cut, body))
            self.inbox_messages += body.messages
            return body
        if type(body) is Credit:
            self._credit_limit = max(self._credit_limit, body.limit)
            return None
        assert type(body) is Barrier
        if body.data_frames != self.data_received:
            msg = f"channel from shard {self.peer}: barrier after {body.data_frames} data frames, {self.data_received} arrived"
            raise ChannelLossError(msg)
        self.last_barrier = max(self.last_barrier, body.checkpoint)
        return body

    def take(self, cut: int) -> Data | None:
        """The oldest frame of the inbox, unless it belongs behind a cut that this shard has not made."""
        if not self.inbox or self.inbox[0][0] > cut:
            return None
        _, data = self.inbox.popleft()
        self.inbox_messages -= data.messages
        self._taken += 1
        if self._taken + self._window - self._granted > self._window // 2:
            self._credit_due = True
        return data

    @property
    def may_send(self) -> bool:
        """Whether there is credit for a data frame."""
        return self.data_sent < self._credit_limit
