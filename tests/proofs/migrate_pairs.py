"""Pairs of random sets of models, migrated from one to the other and back again, on each database.

Each set has one to seven models in two applications: keys of all kinds, of several columns as well; foreign keys, also
to themselves and in circles; many-to-many fields, with tables of their own and through models; columns, tables and
constraints with names that need quotes; defaults, comments, generated columns, enumerations; indexes and constraints of
all kinds that the database has. The second set is what somebody could have made of the first: models and fields have
come, are gone, changed, or have another name (which is said, as `--rename` says it).

Of each pair, by the way of all migrations (the differences are detected, arranged, and run by `Migrator`):

- the first set is created, and three rows put into each table, with values that the second set can hold as well;
- it is migrated to the second set: the schema, as the server describes it, is that of the second set created from
  nothing; the rows of models and columns that are in both have their values; nothing differs from the models any more;
- it is taken back: the schema is that of the first set, the rows are there, and nothing differs from its models.

Every fifth pair goes by files: the migrations are written, and read again.
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import evidence
from hypothesis import HealthCheck, Phase, given, seed, settings
from tests.migrations.model_kinds import KINDS
from tests.migrations.model_pairs import Pair, pairs
from tests.migrations.model_rows import insert, is_few, kept, key_value, plain, read, rows_of, value
from tests.migrations.runs import InMemory
from tests.services.databases import NAMES, Databases
from tests.services.databases import Database as Server

from covet_migrate.changes import arrange, detect
from covet_migrate.changes.questions import Fill, Rename, Unattended
from covet_migrate.exceptions import MigrationError
from covet_migrate.execution.migrator import Migrator
from covet_migrate.files.loader import load_files
from covet_migrate.files.locations import Location, make_package
from covet_migrate.files.names import name_of
from covet_migrate.files.writer import source_of, write_migration
from covet_migrate.inspection.comparing import compare_schemas
from covet_migrate.inspection.own_tables import OWN_TABLES
from covet_migrate.inspection.schema import read_schema
from covet_migrate.inspection.shadow import shadow_of_state
from covet_migrate.migrations import Key, Migration
from covet_migrate.state.from_models import state_of
from covet_migrate.state.models import ModelState, State
from covet_migrate.state.rendering import historical_models
from covet_orm import Database

__all__ = ["Outcome", "check", "prove"]

AT_ONCE = 10
"""How many pairs one seed makes."""
REFUSED = ("exchange the names of their tables", "that is one table with another model")
"""What is refused while differences are detected, and documented."""


class RefusedError(Exception):
    """What is asked for is documented as impossible."""


class WrongError(Exception):
    """A pair shows a defect."""


@dataclass
class Outcome:
    """What was seen on one database."""

    name: str
    pairs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    models: int = 0
    operations: int = 0
    rows: int = 0
    files: int = 0
    seconds: float = 0.0

    def row(self) -> list[object]:
        """It as a row of the table."""
        return [
            self.name, f"{self.pairs:,}", len(self.failures), sum(self.refused.values()), f"{self.models:,}",
            f"{self.operations:,}", f"{self.rows:,}", self.files, f"{self.seconds:.0f}",
        ]  # fmt: skip


HEAD = ["database", "pairs", "failures", "refused", "models", "operations", "rows", "by files", "seconds"]


class Answers:
    """Says what somebody would who made the second set of the first.

    Args:
        pair: the pair.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def renames(self) -> Sequence[Rename]:
        """Those of the pair."""
        return self.pair.renames

    def is_model_renamed(self, old: ModelState, new: ModelState) -> bool:
        """No: all renames were said."""
        return False

    def is_field_renamed(self, model: ModelState, old: str, new: str) -> bool:
        """No."""
        return False

    def fill(self, asked: Fill) -> Any:
        """The value of a row that is not there; that of the third one where it has NULL."""
        models = self.pair.specs[1]
        spec = models[asked.model.label].fields[asked.name]
        label = self._before(asked.model.label)
        was = next((old for old, new in self.pair.fields[label].items() if new == asked.name), None)
        row = 9
        if was is not None:
            # The third row of a number that is true or false in the other set is 1.
            row = 3 if is_few(self.pair.specs[0][label].fields[was]) == is_few(spec) else 1
        if spec.kind in KINDS:
            found = value(models, spec, row)
            return found.value if isinstance(found, enum.Enum) else found
        return key_value(models, str(spec.to), 1 if was is None else 3)

    def replace(self, model: ModelState, name: str, loss: str) -> None:
        """It may be."""

    def _before(self, label: str) -> str:
        return next(old for old, new in self.pair.models.items() if new == label)


class Run:
    """One pair on one database.

    Args:
        database: the database, which is empty.
        pair: the pair.
        folder: where the migrations are written; None for not at all.
    """

    def __init__(self, database: Database, pair: Pair, folder: Path | None) -> None:
        self.database = database
        self.pair = pair
        self.folder = folder
        self.before, self.after = (state_of(historical_models(one)) for one in (pair.before, pair.after))
        self.first: list[Migration] = []
        self.second: list[Migration] = []
        self.rows = rows_of(pair)

    async def check(self) -> None:
        """Do all of it.

        Raises:
            RefusedError: it cannot be migrated, and that is documented.
            Exception: anything else is a defect.
        """
        names: dict[str, list[str]] = {}
        self.first = _migrations(State(), self.before, Unattended(), {}, names)
        state = self._written(self.first, State())
        self._nothing_left(state, self.before, "after creation")
        await self._migrator(self.first).migrate()
        await self._compare(self.pair.before, "after creation")
        await insert(self.database, self.pair.before, self.rows)
        leaves = {one.app: one.key for one in self.first}
        try:
            self.second = _migrations(state, self.after, Answers(self.pair), leaves, names)
        except MigrationError as error:
            if any(text in str(error) for text in REFUSED):
                raise RefusedError(next(text for text in REFUSED if text in str(error))) from error
            raise
        state = self._written(self.second, state)
        self._nothing_left(state, self.after, "forward")
        done = await self._migrator([*self.first, *self.second]).migrate(yes=True)
        await self._compare(self.pair.after, "forward")
        await self._look(self.pair.after, "forward")
        if not done:
            return
        await self._migrator([*self.first, *self.second]).rollback(yes=True)
        await self._compare(self.pair.before, "back")
        await self._look(self.pair.before, "back", back=True)

    def told(self) -> str:
        """The pair, as migrations."""
        found = []
        for title, migrations in (("the first set", self.first), ("to the second", self.second)):
            for one in migrations:
                found += [f"# {title}: {one}", source_of(one)]
        return "\n".join(found)

    def _migrator(self, migrations: Sequence[Migration]) -> Migrator:
        files: Any = InMemory(*migrations)
        if self.folder is not None:
            files = load_files(self._locations())
        return Migrator(self.database, files)

    def _locations(self) -> dict[str, Location]:
        assert self.folder is not None
        found = {}
        for app in sorted({one.app for one in (*self.first, *self.second)}):
            parent = self.folder / app
            parent.mkdir(exist_ok=True)
            found[app] = Location(app, f"pairs_{app}.migrations", parent / "migrations")
            make_package(found[app])
        return found

    def _written(self, migrations: Sequence[Migration], state: State) -> State:
        """The state after migrations, as their files say it."""
        if self.folder is None:
            for one in migrations:
                source_of(one)
                state = one.apply(state)
            return state
        locations = self._locations()
        for one in migrations:
            write_migration(one, locations[one.app].folder)
        return load_files(locations).graph().state()

    @staticmethod
    def _nothing_left(state: State, models: State, when: str) -> None:
        left = detect(state, models, Unattended()).detected
        if left:
            raise WrongError(f"{when}: makemigrations still finds {[one.operation for one in left]}")

    async def _compare(self, state: State, when: str) -> None:
        wanted = await shadow_of_state(self.database, state)
        there = await read_schema(self.database)
        for name in OWN_TABLES:
            there.tables.pop(name, None)  # type: ignore[attr-defined]
        differences = compare_schemas(there, wanted)
        if differences:
            raise WrongError("\n".join([f"{when}: the schema is another one", *map(str, differences)]))

    async def _look(self, state: State, when: str, *, back: bool = False) -> None:
        there = await read(self.database, state)
        for label, wanted in kept(self.pair, self.rows, back=back):
            old = next(one for one, new in self.pair.models.items() if (one if back else new) == label)
            names = [*(self.pair.fields[old] if back else self.pair.fields[old].values())]
            found = [tuple(plain(row[name]) for name in names) for row in there[label]]
            if sorted(found, key=repr) != sorted(wanted, key=repr):
                raise WrongError(f"{when}: rows of {label} in {names}: {found} and not {wanted}")
            for name, then in self.pair.links[old].items():
                one, other = f"{old}.{name}", f"{label}.{name if back else then}"
                links = [[tuple(map(plain, row.values())) for row in each] for each in (self.rows[one], there[other])]
                if sorted(links[0], key=repr) != sorted(links[1], key=repr):
                    raise WrongError(f"{when}: rows of {other}: {links[1]} and not {links[0]}")


def _migrations(
    before: State, after: State, questions: Any, leaves: dict[str, Key], names: dict[str, list[str]]
) -> list[Migration]:
    def named(app: str, operations: Sequence[Any]) -> str:
        taken = names.setdefault(app, [])
        taken.append(name_of(operations, taken, initial=app not in leaves and not taken))
        return taken[-1]

    return arrange(detect(before, after, questions), before, leaves, named)


@contextmanager
def _folder(wanted: bool) -> Iterator[Path | None]:
    if not wanted:
        yield None
        return
    path = Path(tempfile.mkdtemp(prefix="covet-pairs-"))
    modules = set(sys.modules)
    try:
        yield path
    finally:
        for name in set(sys.modules) - modules:
            if name.startswith("pairs_"):
                del sys.modules[name]
        shutil.rmtree(path)


async def check(url: str, pair: Pair, outcome: Outcome, *, files: bool = False) -> None:
    """One pair, in an empty database.

    Raises:
        WrongError: it shows a defect.
    """
    outcome.pairs += 1
    outcome.models += len(pair.after.models)
    with _folder(files) as folder:
        async with Database(url) as database:
            run = Run(database, pair, folder)
            try:
                await run.check()
            except RefusedError as error:
                outcome.refused[str(error)] += 1
            except Exception as error:
                told = "".join(traceback.format_exception(error)[-12:])
                raise WrongError(f"{told}\n{run.told()}") from error
        outcome.files += files
        outcome.operations += sum(len(one.operations) for one in run.second)
        outcome.rows += sum(map(len, run.rows.values()))


def prove(server: Server, wanted: int, first: int, *, shrinks: bool = False) -> Outcome:
    """So many pairs on one database.

    Args:
        server: where.
        wanted: how many pairs.
        first: the seed of the first ten; those after it have the numbers after it.
        shrinks: whether the first failure ends it, as small as hypothesis can make it.
    """
    outcome = Outcome(server.name)
    began = time.monotonic()
    for number in range(first, first + -(-wanted // AT_ONCE)):
        _ten(server, number, min(AT_ONCE, wanted - outcome.pairs), outcome, shrinks=shrinks)
    outcome.seconds = time.monotonic() - began
    return outcome


def _ten(server: Server, number: int, pairs_left: int, outcome: Outcome, *, shrinks: bool) -> None:
    """The pairs of a seed."""

    def one(pair: Pair) -> None:
        try:
            asyncio.run(check(server.empty_database("pairs"), pair, outcome, files=outcome.pairs % 5 == 0))
        except WrongError as error:
            if shrinks:
                raise
            outcome.failures.append(f"{server.name}, --seed {number}: {error}")
            print(outcome.failures[-1], file=sys.stderr, flush=True)

    phases = (Phase.generate, Phase.shrink) if shrinks else (Phase.generate,)
    limits = settings(
        max_examples=pairs_left,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    seed(number)(limits(given(pairs(server.kind))(one)))()


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=150, help="on each server; four times as many on SQLite")
    parser.add_argument("--databases", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seed", type=int, default=1, help="of the first ten pairs")
    parser.add_argument("--shrink", action="store_true", help="end with the first failure, made small; of few pairs")
    parser.add_argument("--print", action="store_true", help="write no page")
    given = parser.parse_args()
    outcomes = []
    with Databases() as databases:
        for name in given.databases:
            wanted = given.pairs * (4 if name == "sqlite" else 1)
            outcomes.append(prove(databases.get(name), wanted, given.seed, shrinks=given.shrink))
    body = evidence.table(HEAD, [outcome.row() for outcome in outcomes])
    refused = sum((outcome.refused for outcome in outcomes), Counter[str]())
    if given.print:
        print(body, *map(str, refused.items()), sep="\n")
    else:
        sections = {"Outcome": body}
        if refused:
            sections["Refused"] = evidence.table(["what the message says", "pairs"], sorted(refused.items()))
        evidence.write(
            "migrate_pairs", "Migrations between random models", __doc__ or "",
            ["covet-migrate", "covet-orm", "sqlalchemy", "hypothesis"], sections, session="proof",
        )  # fmt: skip
    if any(outcome.failures for outcome in outcomes):
        raise SystemExit("pairs failed: see above, and repeat one with --databases NAME --pairs 10 --seed N --shrink")


if __name__ == "__main__":
    main()
