"""Where records come from: the embedded corpus, a file of the user's, a data set of the hub.

Adding a source is a module here with a class that `@source(name)` registers; `data.source` then takes that name.
"""

from kdleak.data.sources.file import read_file
from kdleak.data.sources.registry import Source, find_source, source, sources
from kdleak.data.sources.rows import NO_TASK, SourceRow, field_names, is_blank, task_name, to_records, well_formed
from kdleak.data.sources.tables import check_path, is_utf8, raw_rows

__all__ = [
    "NO_TASK",
    "Source",
    "SourceRow",
    "check_path",
    "field_names",
    "find_source",
    "is_blank",
    "is_utf8",
    "raw_rows",
    "read_file",
    "source",
    "sources",
    "task_name",
    "to_records",
    "well_formed",
]
