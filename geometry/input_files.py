"""Files that users name: opened, or refused with the reason, in one sentence."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

HEAD_BYTES = 4096
WEB_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters or more: one is a drive; Path folds // into /


def reason_of(error: Exception) -> str:
    """First line of an error's message, for messages of one sentence; the name of its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_head(path: str | Path, field: str) -> bytes:
    """The first ``HEAD_BYTES`` of a file, from which its kind can be told.

    Args:
        path: as the user wrote it.
        field: the setting that named it; the messages begin with it.

    Raises:
        ValueError: a web address, a missing or empty file, a folder, or one that cannot be opened; one sentence.
    """
    name = f"{field}: {str(path)!r}"
    if WEB_ADDRESS.match(str(path)):
        raise ValueError(f"{name} is a web address; download it first and give the file's name")
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ValueError(f"{name} is a folder; give one file in it")
        if not stat.S_ISREG(mode):  # a pipe would wait forever
            raise ValueError(f"{name} is not a regular file; save it to disk first")
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{field}: no file {str(path)!r}; check the name") from None
    except PermissionError:
        raise ValueError(f"{name} cannot be opened: no permission to read it; change its permissions") from None
    except OSError as error:
        raise ValueError(f"{name} cannot be opened: {error.strerror or error}") from None
    if not head:
        raise ValueError(f"{name} is empty (0 bytes); copy it again")
    return head
