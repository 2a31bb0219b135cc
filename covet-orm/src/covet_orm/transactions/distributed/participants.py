"""Which databases take part, and which of them holds the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from covet.context import current_app
from covet.exceptions import NoApplicationError, SettingsError
from covet_orm.ambient import find_database
from covet_orm.databases import Database
from covet_orm.exceptions import NotSupported, TransactionError
from covet_orm.settings import OrmSettings
from covet_orm.transactions.distributed.identifiers import check_name

__all__ = ["Chosen", "Participants", "application_name"]

UNNAMED = "covet"


class Chosen(NamedTuple):
    """What was found.

    Attributes:
        databases: those that take part.
        log: the one that holds the decision.
        application: whose transaction it is.
    """

    databases: tuple[Database, ...]
    log: Database
    application: str


class Participants(NamedTuple):
    """What was asked for.

    Attributes:
        databases: those that take part, or their aliases.
        log: the one that holds the decision; None for the SQLite among them, that of the
            settings, or the first.
        application: whose transaction it is; empty for the name in the settings.
    """

    databases: Sequence[str | Database]
    log: str | Database | None = None
    application: str = ""

    def chosen(self) -> Chosen:
        """Find them.

        Raises:
            NoDatabase: there is none of an alias.
            NotSupported: two of them are SQLite, which cannot prepare a transaction; or one is, and the log is to be
                elsewhere.
            TransactionError: one is named twice, or a name does not fit into that of a prepared transaction.
        """
        databases = tuple(_database(one) for one in self.databases)
        if not databases:
            raise TransactionError("distributed() wants the databases that take part: distributed('orders', 'billing')")
        for number, database in enumerate(databases):
            check_name(database.alias, "the alias")
            for other in databases[:number]:
                if other._lanes is database._lanes or other.alias == database.alias:
                    raise TransactionError(f"{database.alias!r} is named twice; each database takes part once")
        files = [database for database in databases if database.kind == "sqlite"]
        if len(files) > 1:
            names = " and ".join(repr(database.alias) for database in files)
            raise NotSupported(
                f"{names} are SQLite, which cannot prepare a transaction: one of them can take part, by committing "
                "last; ATTACH makes one database of several files"
            )
        log = _configured() or databases[0] if self.log is None else _database(self.log)
        if files:
            if self.log is not None and log._lanes is not files[0]._lanes:
                raise NotSupported(
                    f"log={log.alias!r}: {files[0].alias!r} is SQLite, which cannot prepare a transaction, so that its "
                    "commit is the decision, and its file holds the log; leave out `log`"
                )
            log = files[0]
        return Chosen(databases, log, check_name(self.application or application_name(), "the application"))


def application_name() -> str:
    """The name in the settings of the ambient application, in letters that an identifier can have."""
    try:
        name = current_app().settings.app.name
    except NoApplicationError:
        return UNNAMED
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)[:31] or UNNAMED


def _configured() -> Database | None:
    """The database that the settings of the ambient application name."""
    try:
        settings = current_app().settings[OrmSettings]
    except (NoApplicationError, SettingsError):
        return None
    return find_database(settings.distributed_log) if settings.distributed_log else None


def _database(one: str | Database) -> Database:
    return find_database(one) if isinstance(one, str) else one
