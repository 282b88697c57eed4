"""Which partition a key belongs to: the choice of Kafka's default partitioner.

Anybody who writes the same key with a Java client lands on the same partition.
"""

from __future__ import annotations

_SEED = 0x9747B28C
_MIX = 0x5BD1E995
_UINT32 = 0xFFFFFFFF
_POSITIVE = 0x7FFFFFFF


def murmur2(key: bytes) -> int:
    """Kafka's 32-bit MurmurHash2 of `key`, as an unsigned number.

    Source: Austin Appleby's MurmurHash2, with the seed of `org.apache.kafka.common.utils.Utils.murmur2`.
    """
    body = len(key) & ~3
    h = _SEED ^ len(key)
    for at in range(0, body, 4):
        k = (int.from_bytes(key[at : at + 4], "little") * _MIX) & _UINT32
        k = ((k ^ (k >> 24)) * _MIX) & _UINT32
        h = ((h * _MIX) & _UINT32) ^ k
    if body < len(key):
        h = ((h ^ int.from_bytes(key[body:], "little")) * _MIX) & _UINT32
    h = ((h ^ (h >> 13)) * _MIX) & _UINT32
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key` in a topic of `partitions` (at least 1) partitions."""
    return (murmur2(key) & _POSITIVE) % partitions
