"""A kind of ingress and a kind of egress that stand in for any third party's.

Not in conftest: annotations are resolved in the module of a class, and several modules are called ``conftest``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from shardfun.config.units import Duration, Size, toml_key


class ProbeAuth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    user: str
    password: str = "p"
    ttl: Annotated[float, Duration] = 60.0


class ProbeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename=toml_key):
    path: str
    format: Literal["jsonl", "csv"] | None = None
    partition_by: str | None = None
    rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    follow: bool = False
    poll_s: Annotated[float, Duration(0.01, 60)] | None = None
    chunk_bytes: Annotated[int, Size] = 4096
    tags: tuple[str, ...] = ()
    auth: ProbeAuth | None = None

    def __post_init__(self) -> None:
        if self.format == "csv" and self.follow:
            raise ValueError("follow: not possible with format csv")


class ProbeIngress:
    options: ClassVar[type[ProbeOptions]] = ProbeOptions


class ProbeSinkOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    path: list[str] = []


class ProbeEgress:
    options: ClassVar[type[ProbeSinkOptions]] = ProbeSinkOptions

    @classmethod
    def check(cls, options: ProbeSinkOptions, partitions: int) -> str | None:
        return "expected one path per shard" if 0 < len(options.path) < partitions else None
