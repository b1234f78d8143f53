"""Models by name: a local folder in hub layout, or a model id of the Hugging Face hub at a revision.

From the hub only weights in safetensors, configuration and tokenizer are fetched: no pickle, no code.
"""

from __future__ import annotations

import hashlib
import json
import re
from logging import CRITICAL
from pathlib import Path
from typing import Any

from kdleak.core.errors import KdleakError, shown

#: What makes a model folder, and is fetched and copied.
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
#: Exports to other frameworks stand in folders of their own.
_UNWANTED = ["*/*"]
#: What the hub's cache takes for names of folders and files: a commit, and a file's tag.
_NAME = re.compile(r'(W/)?"?[A-Za-z0-9_-][A-Za-z0-9._-]*"?')
#: A commit, branch or tag, which stands in names of the cache too.
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]*")


def model_folder(name: str, revision: str | None = None, pickle: bool = False) -> Path:
    """The folder that `name` stands for: a local folder as it is, else the hub's model of that id, fetched.

    `id@revision` names a revision too. pickle: fetch weights in pickle as well, for `kdleak.models.convert`.
    Raises KdleakError where there is neither, or the hub is out of reach.
    """
    try:
        path = Path(name).expanduser()
        name.encode()
    except (RuntimeError, UnicodeEncodeError):  # ~nobody, or bytes that are no UTF-8
        raise KdleakError(f"{name}: no name of a folder (an unknown user's, or not UTF-8); write it out") from None
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists():
        raise KdleakError(f"{name}: no such model folder; name one written by save_pretrained, or a hub id")
    model, _, named = name.partition("@")
    return _fetch(model, named or revision, ("*.bin",) if pickle else ())


def folder_digest(folder: Path) -> str:
    """sha256 over the names and contents of all files that make the model in `folder`, its tokenizer's among them."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()}):
        with path.open("rb") as stream:
            digest.update(f"{path.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _fetch(name: str, revision: str | None, more: tuple[str, ...]) -> Path:
    from huggingface_hub import get_session, logging, snapshot_download

    logging.set_verbosity(CRITICAL)  # what goes wrong is said once, below
    if revision is not None and (".." in revision or not _REVISION.fullmatch(revision)):
        raise KdleakError(f"{name}: its revision '{shown(revision)}' is no name of a commit, branch or tag; write one")
    session = get_session()
    others = [hook for hook in session.event_hooks["response"] if hook is not _check_names]
    session.event_hooks = {**session.event_hooks, "response": [*others, _check_names]}
    try:
        wanted = [*MODEL_FILES, *more]
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=_UNWANTED))
    except Exception as error:  # what it raises depends on the HTTP library of its version
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        at = f" at revision {revision}" if revision else ""
        raise KdleakError(
            f"{name}: no such folder here, and no model of that name{at} can be fetched from the hub ({reason}); "
            "download it elsewhere and give its folder"
        ) from None


def _check_names(response: Any) -> None:
    """Refuse an answer whose commit or tag is no name: the hub's cache would write where it leads."""
    headers, names = response.headers, []
    if "x-repo-commit" in headers:
        names += [headers["x-repo-commit"], headers.get("x-linked-etag") or headers.get("etag") or "none"]
    if "/api/" in response.request.url.path:
        response.read()
        names += [_commit(response.content), *(["/"] if "/api/" not in headers.get("location", "/api/") else [])]
    if not all(map(_NAME.fullmatch, names)):
        raise KdleakError("its answers name files of the cache that are none")


def _commit(answer: bytes) -> str:
    """The commit that the hub's interface says a model is at."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        told = None
    return str(told.get("sha") or "none") if isinstance(told, dict) else "none"
