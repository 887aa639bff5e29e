"""Text that a table only names: blobs fetched by id from Software Heritage or a mirror of it, through fsspec.

All blobs of a batch are asked for at once, which an asynchronous file system (s3fs, gcsfs, http) answers in parallel.
What fails is tried again, and at last is an error that ends the work: the next start continues there. A blob that does
not exist is a skip. Blobs may be gzipped, as Software Heritage keeps them; what unpacks to more than is allowed is not
unpacked further.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from ...config import ContentConfig
from .remote import file_system, is_url

TRIES = 3
AT_ONCE = 128
"""Requests in flight: s3fs' own default for a batch."""

GZIP = b"\x1f\x8b"
BLOB = re.compile(r"^[A-Za-z0-9:_-]{1,200}$")


class BlobError(ValueError):
    """A blob that cannot be had; the message is the reason of the skip."""


def fetch(content: ContentConfig, blob_ids: Sequence[str], max_bytes: int) -> Mapping[str, bytes | BlobError]:
    """Blob id → its bytes, or why there are none."""
    found: dict[str, bytes | BlobError] = {}
    good = []
    for blob in dict.fromkeys(blob_ids):
        if BLOB.match(blob):
            good.append(blob)
        else:  # it would become part of a URL
            found[blob] = BlobError("bad_blob_id")
    for start in range(0, len(good), AT_ONCE):
        batch = good[start : start + AT_ONCE]
        urls = {blob: url_of(content, blob) for blob in batch}
        fs, _ = file_system(next(iter(urls.values())), content.storage)
        paths = {blob: str(fs._strip_protocol(url)) for blob, url in urls.items()}
        answers: dict[str, object] = {}
        for _ in range(TRIES):
            missing = [path for path in paths.values() if not _is_answer(answers.get(path))]
            answers.update({path: _asked(fs, path) for path in missing} if len(missing) == 1 else _all(fs, missing))
        for blob, path in paths.items():
            found[blob] = _unpacked(urls[blob], answers.get(path), max_bytes)
    return found


def url_of(content: ContentConfig, blob_id: str) -> str:
    """Where a blob is."""
    url = content.url.replace("{blob_id}", blob_id)
    return url if is_url(url) else f"file://{url}"


def _all(fs: Any, paths: Sequence[str]) -> dict[str, object]:
    return dict(fs.cat(list(paths), on_error="return")) if paths else {}


def _asked(fs: Any, path: str) -> object:
    try:
        return fs.cat_file(path)
    except Exception as error:  # every file system has its own
        return error


def _is_answer(answer: object) -> bool:
    return isinstance(answer, bytes | FileNotFoundError | KeyError | PermissionError)


def _unpacked(url: str, answer: object, max_bytes: int) -> bytes | BlobError:
    if isinstance(answer, FileNotFoundError | KeyError):
        return BlobError("no_such_blob")
    if isinstance(answer, PermissionError):
        return BlobError("blob_not_allowed")
    if not isinstance(answer, bytes):
        raise RuntimeError(
            f"{url}: cannot be fetched ({type(answer).__name__}: {answer}); what is finished is kept: run again"
        )
    if not answer.startswith(GZIP):
        return answer
    unpacker = zlib.decompressobj(wbits=31)
    try:
        data = unpacker.decompress(answer, max_bytes + 1)
    except zlib.error as error:
        return BlobError(f"broken_blob: {error}")
    if len(data) > max_bytes:
        return BlobError("over_max_file_bytes")
    return data if unpacker.eof else BlobError("broken_blob: cut off")
