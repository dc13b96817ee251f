"""Which tests are demanded, and how they are dealt out.

A test's key is ``file::class::function#n``: n is its place among the function's parameter sets,
because the id that pytest gives a parameter can depend on what is tested.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.celery_compat.suite.errors import SuiteError

TIERS = {"core": ("core",), "stretch": ("stretch",), "all": ("core", "stretch")}
SHARD_S = 60
USUAL_S = 0.6  # of a test that has no entry under "seconds"


@dataclass(frozen=True)
class Shard:
    """Tests of one file that run in one process."""

    name: str
    file: str
    keys: tuple[str, ...]
    seconds: float


class Demand:
    """The contents of demanded.json."""

    def __init__(self, contents: dict[str, Any]) -> None:
        self._contents = contents
        self.known_keys = frozenset(self.keys("all"))

    @classmethod
    def load(cls) -> Demand:
        """Read the file beside this module."""
        return cls(json.loads((Path(__file__).parent / "demanded.json").read_text()))

    def keys(self, tier: str, files: Iterable[str] = ()) -> list[str]:
        """List a tier's keys; of these files alone, if any are given (``test_tasks``).

        Raises:
            SuiteError: A file has no demanded test.
        """
        found = [
            f"{file}::{function}#{number}"
            for part in TIERS[tier]
            for file, functions in self._contents[part].items()
            for function, count in functions.items()
            for number in range(count)
        ]
        wanted = {name.removesuffix(".py") + ".py" for name in files}
        unknown = wanted - {file_of(key) for key in found}
        if unknown:
            raise SuiteError(f"no test is demanded of {', '.join(sorted(unknown))}")
        return [key for key in found if not wanted or file_of(key) in wanted]

    def shards(self, keys: Iterable[str]) -> list[Shard]:
        """Deal the keys out into shards of about a minute, the longest first.

        The same keys give the same shards, however many run at a time.
        """
        by_file: dict[str, list[str]] = {}
        for key in keys:
            by_file.setdefault(file_of(key), []).append(key)
        shards = [shard for file, some in by_file.items() for shard in self._deal(file, some)]
        return sorted(shards, key=lambda shard: -shard.seconds)

    def _deal(self, file: str, keys: list[str]) -> list[Shard]:
        seconds = {key: self._contents["seconds"].get(key, USUAL_S) for key in keys}
        hands: list[list[str]] = [[]]
        # A long test is dealt first, so that it is alone or nearly so.
        for key in sorted(keys, key=lambda key: -seconds[key]):
            if hands[-1] and sum(map(seconds.__getitem__, hands[-1])) + seconds[key] > SHARD_S:
                hands.append([])
            hands[-1].append(key)
        stem = file.removesuffix(".py")
        return [
            Shard(
                f"{stem}-{number}" if len(hands) > 1 else stem,
                file,
                tuple(hand),
                sum(map(seconds.__getitem__, hand)),
            )
            for number, hand in enumerate(hands, 1)
        ]


def file_of(key: str) -> str:
    """Give the test file of a key."""
    return key.partition("::")[0]
