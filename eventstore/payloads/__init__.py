"""Payloads: any Python object as bytes, and back, with its types kept."""

from refold.eventstore.payloads.codec import (
    PayloadCodec,
    decode_db_payload,
    digest,
    encode_payload,
    is_payload,
)

__all__ = ["PayloadCodec", "decode_db_payload", "digest", "encode_payload", "is_payload"]
