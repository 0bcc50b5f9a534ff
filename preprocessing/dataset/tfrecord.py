"""Reads and writes TFRecord framing without TensorFlow.

A file is a sequence of records, each

    uint64  length of the data, little-endian
    uint32  masked CRC-32C of those eight bytes
    bytes   data
    uint32  masked CRC-32C of the data

as specified in tensorflow/core/lib/io/record_writer.h. Reader and writer work on any binary file object and hold one
record in memory at a time.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CRC.size


class BadRecord(ValueError):
    """Raised for a damaged record.

    Attributes:
      index: the record's number in its file, from 0.
      fault: what is wrong, worded to follow "record 41: ".
      data: the record's data if it could be read despite a wrong checksum; else empty.
    """

    def __init__(self, index: int, fault: str, data: bytes = b"") -> None:
        super().__init__(f"record {index}: {fault}")
        self.index = index
        self.fault = fault
        self.data = data


class Writer:
    """Appends records to a file object and counts them.

    Attributes:
      records: number of records written.
      bytes: bytes written, including framing.
      crc32c: CRC-32C of everything written, hexadecimal.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._checksum = google_crc32c.Checksum()
        self.records = 0
        self.bytes = 0

    def write(self, *pieces: bytes) -> None:
        """Appends one record, given in one or more pieces, so that an image in it need not be copied."""
        length = _LENGTH.pack(sum(map(len, pieces)))
        crc = 0
        for piece in pieces:
            crc = google_crc32c.extend(crc, piece)
        for part in (length + _masked(google_crc32c.value(length)), *pieces, _masked(crc)):
            self._file.write(part)
            self._checksum.update(part)
            self.bytes += len(part)
        self.records += 1

    @property
    def crc32c(self) -> str:
        return self._checksum.digest().hex()


class Reader:
    """Iterates over the records of a file object and checks each.

    Attributes:
      bytes: bytes read so far, including framing.
      crc32c: CRC-32C of everything read so far, hexadecimal.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._checksum = google_crc32c.Checksum()
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yields each record's data.

        Raises:
          BadRecord: the file ends within a record, or a checksum does not match.
        """
        index = 0
        while True:
            header = self._read(_HEADER_BYTES)
            if not header:
                return
            if len(header) < _HEADER_BYTES:
                raise BadRecord(index, "truncated: the file ends within its header")
            if header[_LENGTH.size :] != _masked(google_crc32c.value(header[: _LENGTH.size])):
                # Without a trustworthy length, neither this record's data nor any later record can be found.
                raise BadRecord(index, "length CRC does not match")
            (length,) = _LENGTH.unpack_from(header)
            data = self._read(length)
            footer = self._read(_CRC.size)
            if len(data) < length or len(footer) < _CRC.size:
                raise BadRecord(index, "truncated: the file ends within its data")
            if footer != _masked(google_crc32c.value(data)):
                raise BadRecord(index, "data CRC does not match", data)
            yield data
            index += 1

    @property
    def crc32c(self) -> str:
        return self._checksum.digest().hex()

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._checksum.update(data)
        self.bytes += len(data)
        return data


def _masked(crc: int) -> bytes:
    # Rotated and offset, because a CRC of data that contains its own CRC is of little use.
    return _CRC.pack((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
