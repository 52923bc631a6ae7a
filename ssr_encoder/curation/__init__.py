"""From raw image-text records to training shards: small resumable steps over folders of webdataset shards."""

from .reports import BadShard, ShardReport
from .shards import Sample, list_shards, read_shard, write_shard
from .steps import Outcome, Step, run_step

__all__ = [
    "BadShard",
    "Outcome",
    "Sample",
    "ShardReport",
    "Step",
    "list_shards",
    "read_shard",
    "run_step",
    "write_shard",
]
