"""Results of finished experiments: every DVC experiment is a commit of its parameters and locks, and the results that
the locks name lie in DVC's cache."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from kdleak.config.load import load_params
from kdleak.config.schema import Params
from kdleak.core.errors import KdleakError
from kdleak.core.files import read_json
from kdleak.core.paths import BASELINE, TEACHER, Project
from kdleak.distill.methods import METHODS
from kdleak.distill.recipes import recipe
from kdleak.pipeline.provenance import Provenance

#: Where DVC keeps experiments: refs/exps/<first two of the baseline>/<rest of it>/<name>.
_REFS = "refs/exps/??/*/*"
#: measure, value, low end and high end of its interval
_Figure = tuple[str, float | None, float | None, float | None]
_NEEDED = (".json", ".lock", "params.yaml", "families.yaml", "results/attacks.csv", "results/models.csv")


@dataclass(frozen=True)
class Result:
    """One figure of one model. settings: what determined it beside the columns here; content: hash of its file."""

    experiment: str
    method: str
    measure: str
    family: str
    size: str
    seed: int
    protocol: str
    settings: dict[str, Any]
    value: float
    low: float | None
    high: float | None
    content: str


def results_of(project: Project, names: Sequence[str] = (), all_commits: bool = False) -> tuple[list[Result], int]:
    """The figures of the experiments `names`, or of all experiments of HEAD (of every commit), and of the workspace;
    and the number of result files left out because their own locks call them outdated, or because DVC's cache does
    not hold them (an experiment of another machine).

    A result that several experiments share comes once. KdleakError where a name is no experiment and no revision.
    """
    found, outdated = _figures("workspace", project)
    revisions = _revisions(project, names, all_commits)
    cache = _dvc_cache(project) if revisions else None
    for name, revision in revisions.items():
        with checked_out(project, revision) as copy:
            more, left_out = _figures(name, copy, cache)
        found, outdated = found + more, outdated + left_out
    once = {(r.method, r.measure, r.content): r for r in reversed(found)}
    return [result for result in found if once[result.method, result.measure, result.content] is result], outdated


def _revisions(project: Project, names: Sequence[str], all_commits: bool) -> dict[str, str]:
    """Name -> commit of the experiments asked for."""
    if not _git(project, "rev-parse", "--git-dir", missing_ok=True):
        if names:
            raise KdleakError(
                f"{project.root.resolve()} is no git repository, so it has no experiment '{names[0]}'; name none"
            )
        return {}
    listed = _git(project, "for-each-ref", "--format=%(refname) %(objectname)", _REFS).splitlines()
    head = _git(project, "rev-parse", "--verify", "-q", "HEAD", missing_ok=True).strip()
    known, of_head = {}, {}
    for line in listed:
        ref, revision = line.split()
        _, _, first, rest, name = ref.split("/")
        known[name] = revision
        if first + rest == head or all_commits:
            of_head[name] = revision
    if not names:
        return of_head
    return {name: known.get(name) or revision_of(project, name) for name in names}


def revision_of(project: Project, name: str) -> str:
    """The commit of a name; KdleakError where it is neither an experiment nor a revision."""
    revision = _git(project, "rev-parse", "--verify", "-q", f"{name}^{{commit}}", missing_ok=True).strip()
    if not revision:
        raise KdleakError(f"'{name}' is no experiment and no revision; 'dvc exp list --all-commits' names them")
    return revision


@contextmanager
def checked_out(project: Project, revision: str) -> Iterator[Project]:
    """A folder that holds what a comparison needs of a revision and git has: parameters, locks, results and tables."""
    listed = _git(project, "ls-tree", "-r", "--name-only", revision).splitlines()
    wanted = [name for name in listed if name.endswith(_NEEDED)]
    with tempfile.TemporaryDirectory(prefix="kdleak-") as folder:
        if wanted:
            packed = _run(project, "archive", "--format=tar", revision, "--", *wanted)
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                for member in filter(tarfile.TarInfo.isfile, archive):
                    path = Path(folder) / member.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    content = archive.extractfile(member)
                    assert content is not None  # it is a file
                    path.write_bytes(content.read())
        yield Project(Path(folder))


def _dvc_cache(project: Project) -> Path | None:
    """Where DVC keeps outputs by their md5; None where there is no DVC."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(str(project.root.resolve())) as repo:
            return Path(repo.cache.local.path)
    except NotDvcRepoError:
        return None


def _bring(path: Path, digest: str, cache: Path | None) -> None:
    """Link the output of that md5 to `path`, where neither is missing nor in place already."""
    if cache and not path.exists() and (kept := cache / digest[:2] / digest[2:]).is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(kept)


def _figures(experiment: str, project: Project, cache: Path | None = None) -> tuple[list[Result], int]:
    """Every figure that the folder's locks vouch for, and the number of files that they do not, or that are away."""
    try:
        params = load_params(project.params)
    except KdleakError:
        return [], 0  # no project, or one of a version with other parameters
    provenance, found, outdated = Provenance(project), [], 0
    for method in (TEACHER, BASELINE, *(m for m in METHODS if m != BASELINE)):
        for path, read in (
            (project.membership(method), _leaks),
            (project.memorization(method), _gap),
            (project.utility(method), _utility),
        ):
            digest = provenance.digest(path)
            if digest:
                _bring(path, digest, cache)
            if not path.is_file():
                outdated += bool(digest)
                continue
            made_with = provenance.settings(path, params)
            if made_with is None:
                outdated += 1
            else:
                found += _results(experiment, method, path, made_with, read(read_json(path)))
    return found, outdated


def _results(experiment: str, method: str, path: Path, made_with: Params, figures: Iterable[_Figure]) -> list[Result]:
    content = sha256(path.read_bytes()).hexdigest()
    identity = (made_with.model.family, made_with.model.student, made_with.seed, made_with.kd.protocol)
    settings = _settings(made_with, method)
    return [
        Result(experiment, method, measure, *identity, settings, value, low, high, content)
        for measure, value, low, high in figures
        if value is not None
    ]


def _leaks(report: dict[str, Any]) -> Iterator[_Figure]:
    for attack, figures in report["attacks"].items():
        yield f"auc {attack}", figures["auc"], *figures["auc_ci95"]


def _gap(report: dict[str, Any]) -> Iterator[_Figure]:
    accuracy = report["token_accuracy"]
    yield "memorization gap", accuracy["gap"], *accuracy["gap_ci95"]


def _utility(report: dict[str, Any]) -> Iterator[_Figure]:
    yield "perplexity", report["perplexity"], None, None
    yield "rouge_l", report["rouge_l"], *report["rouge_l_ci95"]


def _settings(params: Params, method: str) -> dict[str, Any]:
    """What else determines a method's figures, flat; equal settings at another seed are repetitions."""
    shown = params.model_dump(include={"data", "canaries", "model", "optimizer", "base", "teacher", "audit"})
    if method == BASELINE:
        for section in ("teacher", "canaries"):
            shown.pop(section)
    if method != TEACHER:
        kd = params.kd
        shown["kd"] = {"recipe": recipe(method, kd).model_dump(), "student_fraction": kd.student_fraction}
    for column in ("family", "student"):
        shown["model"].pop(column)
    return _flat(shown)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat


def _git(project: Project, *arguments: str, missing_ok: bool = False) -> str:
    return _run(project, *arguments, missing_ok=missing_ok).decode()


def _run(project: Project, *arguments: str, missing_ok: bool = False) -> bytes:
    try:
        return subprocess.run(("git", *arguments), cwd=project.root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        if missing_ok:
            return b""
        said = (getattr(error, "stderr", b"") or str(error).encode()).decode(errors="replace").strip().splitlines()
        raise KdleakError(f"git {arguments[0]} failed ({said[0] if said else 'no message'})") from None
