"""Offline files of W&B."""

import struct


def read_records(path):
    """Yield the records of a .wandb file."""
    from wandb.proto import wandb_internal_pb2

    for content in _leveldb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        yield record


def _leveldb_records(content, block=32768):
    """The records of a LevelDB log: parts with heads of (checksum, length, kind) in blocks."""
    offset, record = 7, b""  # what comes first is W&B's own
    while offset + 7 <= len(content):
        if block - offset % block < 7:  # no head fits: the rest of the block is padding
            offset += block - offset % block
            continue
        length, kind = struct.unpack_from("<HB", content, offset + 4)
        record += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""
