"""Ray Tune's own folders within a run: which of them can be continued, and by whom.

    tune/search-000/   tuner.pkl                      written anew by every session, before Tune reads it
                       experiment_state-*.json        its trials               } a set for each session, copied here
                       search_gen_state-*.json        its generator of trials  } every few seconds, file by file,
                       searcher-state-*.json          our results that wait    } by Tune
                       signature-*.json               ours: digests of the three, and a signature

Tune restores by pickle, and pickles run code. It also takes a torn file for an empty experiment. So a set is only
handed to Tune if its signature fits: then the files are whole, of one moment, and written by the same user at the same
path. The key is in the user's cache folder (`NASRAY_CACHE`), never in a run. What is not signed is removed first.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from nasray.cluster.files import cache_folder, to_json, write_atomic
from nasray.cluster.reading import read_json
from nasray.spaces import NasrayError

PREFIX = "search-"
SIGNED = ("experiment_state-{}.json", "search_gen_state-{}.json", "searcher-state-{}.json")
SIGNATURE = "signature-{}.json"
FORMAT = 1


def newest_search(tune: Path) -> Path | None:
    """Return Tune's newest folder of a run; None if it never began."""
    found = [path for path in tune.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return max(found, default=None, key=lambda path: int(path.name.removeprefix(PREFIX)))


def next_name(newest: Path | None) -> str:
    """Return the name of a further folder."""
    return f"{PREFIX}{0 if newest is None else int(newest.name.removeprefix(PREFIX)) + 1:03d}"


def sign(staging: Path, session: str, search: Path, num_batches: int) -> None:
    """Sign the set of files that Tune has just written, so that a later session may continue from it.

    Args:
        staging: Where the files are; Tune copies all of them to the run's folder.
        session: Tune's name of the session, part of the files' names.
        search: Tune's folder in the run.
        num_batches: Batches told so far.
    """
    key = _key(create=True)
    if key is None:
        return  # nothing is continued where nothing can be kept for this user
    content = {
        "format": FORMAT,
        "folder": str(search),
        "num_batches": num_batches,
        "files": {name: _digest(staging / name) for name in (pattern.format(session) for pattern in SIGNED)},
    }
    write_atomic(staging / SIGNATURE.format(session), to_json({**content, "signature": _sign(key, content)}).encode())


def prepare(search: Path, num_batches: int) -> str | None:
    """Make Tune's folder safe to continue: return None, or the reason why it cannot be.

    Everything that Tune would read in it and that is not signed is removed, unless there is such a reason.

    Args:
        search: Tune's folder.
        num_batches: Batches of the history. A folder that knows of more is not continued, so that what was taken out
            of the history is searched again.
    """
    if (reason := _writable_by_others(search)) is not None:
        return reason
    key = _key(create=False)
    reason = "it holds no state that nasray signed"
    for path in sorted(search.glob(SIGNATURE.format("*")), reverse=True):
        try:
            names = _signed_files(search, path, key, num_batches)
        except (NasrayError, OSError, ValueError) as error:
            reason = str(error)
            continue
        _remove_others(search, {path.name, *names})
        return None
    return reason


def _signed_files(search: Path, path: Path, key: bytes | None, num_batches: int) -> list[str]:
    """Return the names of the files that a signature is about.

    Raises:
        ValueError, NasrayError, OSError: if the signature is not this user's, or the files are not as signed.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(signature := content.pop("signature", None), str):
        raise ValueError(f"{path.name} is damaged")
    if key is None or not hmac.compare_digest(signature.encode(), _sign(key, content).encode()):
        raise ValueError("it was not written by this user with this cache folder (see NASRAY_CACHE)")
    if content["format"] != FORMAT or content["folder"] != str(search):
        raise ValueError(f"it was moved here from {content['folder']}")
    for name, digest in content["files"].items():
        if _digest(search / name) != digest:
            raise ValueError(f"{name} is not as it was written: damaged, or the write was interrupted")
    if content["num_batches"] > num_batches:
        raise ValueError("it is ahead of the history")
    return list(content["files"])


def _remove_others(search: Path, kept: set[str]) -> None:
    """Remove what Tune reads by name alone: older and unsigned states, and pickled errors (their text stays)."""
    for path in search.iterdir():
        if path.suffix in (".json", ".pkl") and path.name not in kept and not path.is_dir():
            path.unlink()
    for path in search.glob("*/error.pkl"):
        path.unlink()


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sign(key: bytes, content: dict[str, Any]) -> str:
    return hmac.new(key, to_json(content).encode(), "sha256").hexdigest()


def _key(*, create: bool) -> bytes | None:
    """Return the user's key; None if there is none, or it cannot be kept or is not safe with others."""
    path = cache_folder("tune") / "key"
    with contextlib.suppress(OSError):
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
            aside.touch(mode=0o600)
            try:
                aside.write_text(secrets.token_hex(32))
                with contextlib.suppress(FileExistsError):  # another process was faster: its key it is
                    os.link(aside, path)
            finally:
                aside.unlink()
        status = path.stat()
        if _is_mine(status) and not stat.S_IMODE(status.st_mode) & 0o077 and status.st_size:
            return path.read_bytes()
    return None


def _writable_by_others(search: Path) -> str | None:
    """Return why a folder is not safe from other users; None if nobody else can change what is in it."""
    for path in (search, *(path for path in search.iterdir() if path.suffix in (".json", ".pkl"))):
        status = path.lstat()
        if not _is_mine(status):
            return f"{path.name} belongs to another user"
        if _is_shared(status):
            return f"others may write to {path.name}"
    for path in search.absolute().parents:
        status = path.stat()
        if not (_is_mine(status) or status.st_uid == 0):
            return f"{path} belongs to another user"
        if _is_shared(status) and not status.st_mode & stat.S_ISVTX:
            return f"others may write to {path}"
    return None


def _is_mine(status: os.stat_result) -> bool:
    return hasattr(os, "geteuid") and status.st_uid == os.geteuid()


def _is_shared(status: os.stat_result) -> bool:
    """Return whether somebody else may write; a group of one's own, as many systems give every user, is nobody else."""
    return bool(status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid)))


def _is_own_group(gid: int) -> bool:
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
