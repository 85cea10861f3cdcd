"""What the writer of a bundle saw of the log, `log.json`: the partitions that it read, and the Merkle root of each."""

from pydantic import AwareDatetime, Field

from schemas.base import Frozen

LOG = "log.json"
LOG_BYTES = 4 * 2**20
"""The most bytes of this file that are read."""
FORMAT = 1
"""The version of the bundle: of its files and of how documents follow from records. It is raised with any change of either."""


class SeenPartition(Frozen):
    """A partition as it was read, from its first record to the last one of that time."""

    topic: str = Field(max_length=249)
    partition: int = Field(ge=0, lt=2**31)
    begin: int = Field(ge=0, description="First offset.")
    end: int = Field(ge=0, description="Offset after the last.")
    records: int = Field(ge=0, lt=2**62, description="Number of records, the leaves of the tree.")
    root: str = Field(pattern=r"^[0-9a-f]{64}$", description="Merkle tree hash (RFC 6962) of all of them.")

    @property
    def name(self) -> str:
        """The partition as citations name it."""
        return f"{self.topic}[{self.partition}]"


class LogView(Frozen):
    """What was read of one log."""

    format: int
    model: str = Field(description="Name of the model that the bundle is about.")
    version: str
    cluster_id: str = Field(description="The Kafka cluster, as it names itself.")
    read_at: AwareDatetime = Field(description="The reader's time when it began to read.")
    software: str = Field(description="Program and version that read.")
    partitions: tuple[SeenPartition, ...] = Field(max_length=10_000, description="By topic and partition.")
