"""Atomic writes: a file is either complete or absent. Fingerprints and clear disk errors."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"  # ends the name of a file that is still being written


class WorldError(ValueError):
    """A folder or file that cannot be read or written as asked; the message says which, and what to do."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it is synced to disk and renamed to ``path``.

    ``path`` is unchanged when the body raises or the process dies.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        # Synced before the rename: after a power cut the new name must not stand for an empty file.
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    # Also for Ctrl-C, so that no partial file stays behind.
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut (where the system lets a folder be synced)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(path: Path) -> dict[str, int | str]:
    """Length in bytes and SHA-256 of a file, in the form that a manifest stores."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


@contextmanager
def disk_errors(action: str, advice: str = "") -> Iterator[None]:
    """Turn an ``OSError`` of the body into a ``WorldError`` that names the failed action and the remedy."""
    try:
        yield
    except OSError as error:
        # Disk errors are the user's to fix; the system's own text names no remedy.
        reasons = {
            errno.ENOSPC: "the disk is full; free some space",
            errno.EDQUOT: "the disk quota is used up; free some space",
            errno.EACCES: "permission denied; choose a folder that you may write to",
            errno.EPERM: "permission denied; choose a folder that you may write to",
            errno.EROFS: "the disk is read-only; choose another folder",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        raise WorldError(f"{action}: {reason}{advice}") from error
