"""Payloads by the parcel, so that few of them are in memory at a time."""

from collections.abc import Iterable, Iterator

PARCEL = 16 * 2**20
"""Bytes that are in memory at a time; a larger payload travels alone."""


def parcels(weights: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """Cut keys, each with the bytes that it stands for, into parcels."""
    parcel: list[str] = []
    weight = 0
    for key, more in weights:
        if parcel and weight + more > PARCEL:
            yield parcel
            parcel, weight = [], 0
        parcel.append(key)
        weight += more
    if parcel:
        yield parcel
