"""What a stage reads: files of the project's folder, modules of kdleak, and parameters; written down as it ends, with
the text of params.yaml."""

import atexit
import importlib.util
import json
import os
import sys

_files: set[str] = set()
_params: set[str] = set()
#: id of a section of the parameters -> its dotted key; the sections are kept alive so that an id stays one's own.
_sections: dict[int, str] = {}
_kept: list = []
#: Modules that the logging to MLflow alone has imported.
_of_logging: set[str] = set()


def start(folder: str) -> None:
    sys.addaudithook(_note_file)
    sys.meta_path.insert(0, _OnLoad("kdleak.config.load", _watch_params))
    sys.meta_path.insert(0, _OnLoad("kdleak.core.files", _watch_tables))
    sys.meta_path.insert(0, _OnLoad("kdleak.tracking.mlflow", _leave_logging_out))
    atexit.register(_write, folder)


def _write(folder: str) -> None:
    with open("params.yaml", encoding="utf-8") as file:
        settings = file.read()
    found = {
        "stage": os.environ["DVC_STAGE"],
        "command": sys.argv[1:],
        "files": sorted(_files),
        "modules": sorted(name for name in {*sys.modules} - _of_logging if name.startswith("kdleak")),
        "params": sorted(_params),
        "settings": settings,
    }
    with open(f"{folder}/{os.getpid()}.json", "w") as file:
        json.dump(found, file)


def _note_file(event: str, args: tuple) -> None:
    if event != "open" or not isinstance(args[0], str | bytes | os.PathLike):
        return
    mode = args[1]
    if "r" in mode if isinstance(mode, str) else not args[2] & (os.O_WRONLY | os.O_RDWR):
        _note(args[0])


def _leave_logging_out(module) -> None:
    """A stage that ends by logging its results to MLflow reads all of them, and the stage has ended."""
    log = module.log_results

    def log_results(*args, **options):
        before = (set(_files), set(_params), set(sys.modules))
        log(*args, **options)
        _files.intersection_update(before[0])
        _params.intersection_update(before[1])
        _of_logging.update(set(sys.modules) - before[2])

    module.log_results = log_results


def _note(file: str | bytes | os.PathLike) -> None:
    path, here = os.path.abspath(os.fsdecode(file)), os.getcwd()
    if path.startswith(here + os.sep):
        _files.add(os.path.relpath(path, here))


def _watch_tables(module) -> None:
    """Arrow opens files beneath Python's eyes."""
    read = module.read_parquet

    def read_parquet(path, **options):
        _note(path)
        return read(path, **options)

    module.read_parquet = read_parquet


class _OnLoad:
    """Finds the module `name` as Python would, and calls `watch` with it before anybody else has it."""

    def __init__(self, name, watch):
        self._name, self._watch = name, watch

    def find_spec(self, name, path=None, target=None):
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            before = set(sys.modules)
            execute(module)
            if name == "kdleak.tracking.mlflow":
                _of_logging.update(set(sys.modules) - before)
            self._watch(module)

        spec.loader.exec_module = exec_module
        return spec


def _watch_params(module) -> None:
    parse = module.parse_params
    section = next(kind for kind in module.Params.__mro__ if kind.__module__ != "pydantic.main" and _is_last(kind))

    def parse_params(*args, **options):
        params = parse(*args, **options)
        _register(params, "")
        return params

    def __getattribute__(self, name):
        value = object.__getattribute__(self, name)
        if name in type(self).__pydantic_fields__ and id(self) in _sections and _is_leaf(value):
            _params.add(_sections[id(self)] + name)
        return value

    dump, copy, entries = section.model_dump, section.model_copy, section.__iter__

    def model_dump(self, **options):
        _note_all(self, options.get("include"), options.get("exclude"))
        return dump(self, **options)

    def model_copy(self, **options):
        made = copy(self, **options)
        if id(self) in _sections:
            _sections[id(made)] = _sections[id(self)]
            _kept.append(made)
        return made

    def __iter__(self):
        _note_all(self)
        return entries(self)

    section.__getattribute__, section.__iter__ = __getattribute__, __iter__
    section.model_dump, section.model_copy = model_dump, model_copy
    module.parse_params = parse_params


def _is_leaf(value: object) -> bool:
    return not isinstance(value, dict) and not hasattr(value, "__pydantic_fields__")


def _is_last(kind: type) -> bool:
    """Whether `kind` is the project's own class next to pydantic's."""
    return any(base.__module__ == "pydantic.main" for base in kind.__bases__)


def _register(section, key: str) -> None:
    _sections[id(section)] = key
    _kept.append(section)
    for name, value in list(section.__dict__.items()):
        if hasattr(value, "__pydantic_fields__"):
            _register(value, f"{key}{name}.")
        elif isinstance(value, dict):
            for entry, content in value.items():
                if hasattr(content, "__pydantic_fields__"):
                    _register(content, f"{key}{name}.{entry}.")
            section.__dict__[name] = _Entries(value, f"{key}{name}.")


def _note_all(section, include=None, exclude=None) -> None:
    key = _sections.get(id(section))
    if key is not None:
        names = set(include or type(section).__pydantic_fields__) - set(exclude or ())
        _params.update(key + name for name in names)


class _Entries(dict):
    """A dictionary of the parameters, whose entries are noted as they are looked up."""

    def __init__(self, content, key):
        super().__init__(content)
        self._key = key

    def __getitem__(self, name):
        self._note(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self._note(name)
        return super().get(name, default)

    def _note(self, name):
        if not hasattr(dict.get(self, name), "__pydantic_fields__"):
            _params.add(self._key + name)
