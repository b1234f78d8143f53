"""`hub`: a data set of the Hugging Face hub at a pinned revision, `data.hub`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kdleak.core.errors import KdleakError
from kdleak.data.sources.registry import Source, source
from kdleak.data.sources.rows import SourceRow, to_records

if TYPE_CHECKING:
    from kdleak.config.data import Hub


@source("hub")
class HubDataset(Source):
    """The rows of one split of `data.hub.name`; with `roles: column`, each brings its role."""

    def rows(self, seed: int) -> Iterator[SourceRow]:
        hub = self.data.hub
        return to_records(read_hub(hub), f"{hub.name}@{hub.revision[:8]}", self.data.roles == "column")

    @property
    def origin(self) -> str:
        return f"{self.data.hub.name}@{self.data.hub.revision}"


def read_hub(hub: Hub) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a pinned hub data set; KdleakError where it cannot be reached."""
    import datasets

    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(hub.name, revision=hub.revision, split=hub.split)
    except Exception as error:  # of the network, of the hub, or of a file whose rows it quotes
        raise KdleakError(
            f"data.hub: {hub.name} cannot be fetched ({type(error).__name__}); download it and use data.source=file"
        ) from error
    return ((f"row {i}", row) for i, row in enumerate(table, start=1))
