"""Detects files that are not media: documents, archives, programs, tables."""

from __future__ import annotations

import re
from typing import Literal

from pipeline.decoders._shared.sniff import is_words
from pipeline.storage.blob import Blob

_PDF = b"%PDF-"
_BLANKS = b"\xef\xbb\xbf\0\t\n\r "
_ZIP = b"PK\x03\x04"
_ZIP_MEMBERS = {
    b"word/": "a Word document (DOCX)",
    b"xl/": "an Excel workbook (XLSX)",
    b"ppt/": "a PowerPoint presentation (PPTX)",
    b"application/epub+zip": "a book (EPUB)",
    b"application/vnd.oasis.opendocument": "an OpenDocument file",
    b"AndroidManifest.xml": "an Android application (APK)",
    b"META-INF/MANIFEST.MF": "a Java archive (JAR)",
}
"""Bytes in the first part of a ZIP, or in the list of members at its end, and what the ZIP then is."""
_ZIP_END_BYTES = 1 << 16
_CPIO = re.compile(rb"07070[127][0-9A-Fa-f]{32}")
_CPIO_ORDERS: dict[bytes, Literal["little", "big"]] = {b"\xc7\x71": "little", b"\x71\xc7": "big"}
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
_DISC_AT, _DISC = 32769, b"CD001"
_MAGIC = {
    b"\x1f\x8b": "a gzip archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"\x04\x22\x4d\x18": "an LZ4 archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"MSCF\0\0\0\0": "a cabinet archive",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a Microsoft Office document (DOC, XLS, PPT) or another OLE file",
    b"\x7fELF": "a program (ELF)",
    b"\xfe\xed\xfa": "a program (Mach-O)",
    b"\xcf\xfa\xed\xfe": "a program (Mach-O)",
    b"\xca\xfe\xba\xbe": "Java bytecode, or a program (Mach-O)",
    b"\0asm": "a WebAssembly module",
    b"SQLite format 3\0": "a SQLite database",
    b"PAR1": "a Parquet file",
    b"ARROW1\0\0": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"\x93NUMPY": "a NumPy array",
    b"\0\x01\0\0\0": "a TrueType font",
    b"OTTO\0": "an OpenType font",
    b"wOFF": "a web font",
    b"wOF2": "a web font",
}
_TEXT_MAGIC = {b"!<arch>\n": "an ar archive", b"{\\rtf": "a rich text document (RTF)"}
"""Formats whose first bytes may all be printable."""


def not_media(head: bytes, blob: Blob) -> str | None:
    """The name of a file's format if no decoder reads it, by its first bytes; else None.

    Raises:
        SampleError: the end of a ZIP cannot be read.
    """
    if head.lstrip(_BLANKS).startswith(_PDF):
        return "a PDF document"
    if head[257:262] == b"ustar" or _is_old_tar(head):
        return "a tar archive"
    if _CPIO.match(head) or _is_old_cpio(head):
        return "a cpio archive"
    if _BZIP2.match(head):
        return "a bzip2 archive"
    if _is_windows_program(head, blob):
        return "a Windows program"
    if not any(head[:16]) and _is_disc_image(blob):
        return "a disc image (ISO 9660)"
    for magic, name in _TEXT_MAGIC.items():
        if head.startswith(magic):
            return name
    if head.startswith(_ZIP):
        return _zip(head, blob)
    if is_words(head):
        return None
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def _is_old_tar(head: bytes) -> bool:
    """True if the first 512 bytes are the header of a tar archive without a magic number, by its checksum."""
    stored = head[148:156].strip(b"\0 ")
    if len(head) < 512 or not stored or any(one not in b"01234567" for one in stored):
        return False
    return sum(head[:148]) + 8 * ord(" ") + sum(head[156:512]) == int(stored, 8)


def _is_old_cpio(head: bytes) -> bool:
    """True if the first bytes are a binary cpio header, of either byte order, followed by a name."""
    order = _CPIO_ORDERS.get(head[:2])
    length = int.from_bytes(head[20:22], order) if order else 0
    return 1 < length <= 1024 and len(head) >= 26 + length and head[26 : 26 + length].find(0) == length - 1


def _is_windows_program(head: bytes, blob: Blob) -> bool:
    at = int.from_bytes(head[0x3C:0x40], "little")
    if head[:2] != b"MZ" or not 0x40 <= at < blob.size():
        return False
    with blob.open() as file:
        file.seek(at)
        return file.read(2) in (b"PE", b"NE", b"LE", b"LX")


def _is_disc_image(blob: Blob) -> bool:
    if blob.size() < _DISC_AT + len(_DISC):
        return False
    with blob.open() as file:
        file.seek(_DISC_AT)
        return file.read(len(_DISC)) == _DISC


def _zip(head: bytes, blob: Blob) -> str:
    """Kind of a ZIP, by the names of its members, which are listed at its end."""
    with blob.open() as file:
        file.seek(max(0, blob.size() - _ZIP_END_BYTES))
        ends = head, file.read(_ZIP_END_BYTES)
    return next((name for member, name in _ZIP_MEMBERS.items() if any(member in end for end in ends)), "a ZIP archive")
