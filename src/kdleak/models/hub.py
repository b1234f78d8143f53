"""Models by name: a local folder in hub layout, or a model id of the Hugging Face hub at a revision.

From the hub only weights in safetensors, configuration and tokenizer are fetched: no pickle, no code.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from kdleak.core.errors import KdleakError

#: What makes a model folder, and is fetched and copied.
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
#: Exports to other frameworks stand in folders of their own.
_UNWANTED = ["*/*"]


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
    from huggingface_hub import snapshot_download

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
