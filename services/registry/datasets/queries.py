"""Reads data sets: one statement per response; it sees committed rows and takes no locks."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from pydantic import Field

from schemas.base import Name
from schemas.datasets import DatasetRegistered, RowsRemoved
from services.chassis.serving.paging import Listing, Page, PageAsked
from services.chassis.serving.reads import Reads
from services.chassis.serving.web.parameters import LongText, Text
from services.registry.datasets import statements

_LISTING = Listing("item", "dataset", "registered_at", "key", statements.FILTERS)
_MADE_FROM = Listing(*statements.MADE_FROM)


class StoredDataset(NamedTuple):
    """One version of a data set as stored in its row, not decoded."""

    registered: str
    registered_at: datetime
    remaining: str | None = None
    """What remains of it, as JSON; `null` if no row of it was erased."""
    erasing: bool | None = None

    @property
    def remains(self) -> RowsRemoved | None:
        """What remains of it after the last erasure that is done; None if there is none."""
        return None if self.remaining in (None, "null") else RowsRemoved.model_validate_json(self.remaining or "")

    @property
    def made(self) -> DatasetRegistered:
        """The registration."""
        return DatasetRegistered.model_validate_json(self.registered)


class DatasetsAsked(PageAsked):
    """The query of a list of data sets; a filter that is None does not filter."""

    name: Name | None = Field(default=None, description="Only versions of the data set with this name.")
    licence: Text | None = Field(default=None, description="Only data sets with this licence.")
    job_id: Text | None = Field(default=None, description="Only data sets that this job registered.")
    registered_by: LongText | None = Field(default=None, description="Only data sets of jobs of this requester.")

    @property
    def filters(self) -> dict[str, str | None]:
        """The filters that a cursor of this list is bound to."""
        return {name: getattr(self, name) for name in statements.FILTERS}


@dataclass(frozen=True, slots=True)
class DatasetQueries:
    """Reads of one service's database."""

    reads: Reads

    async def called(self, name: str, digest: str) -> list[StoredDataset]:
        """Return the data sets of a name whose digest begins with `digest`, the newest one for an empty digest; two at most."""
        rows = await (
            self.reads.rows(statements.CALLED, name, digest) if digest else self.reads.rows(statements.NEWEST_DATASET, name)
        )
        return [StoredDataset(*row) for row in rows]

    async def known(self, name: str, most: int) -> list[str]:
        """Return the digests of a name that were registered last."""
        return [row[0] for row in await self.reads.rows(statements.KNOWN, name, most)]

    async def page(self, asked: DatasetsAsked) -> Page:
        """Return one page of data sets, newest first. Raises a 422 Problem for a cursor of another list."""
        return await _LISTING.page(self.reads, asked.filters, asked.limit, asked.cursor)

    async def made_from(self, name: str, sha256: str | None, asked: PageAsked) -> Page:
        """Return one page of the versions made from the rows of one version of a data set, or of all where `sha256` is None."""
        filters = {"name": name} if sha256 is None else {"sha256": sha256}
        return await _MADE_FROM.page(self.reads, filters, asked.limit, asked.cursor)
