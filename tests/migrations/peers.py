"""Other tools for migrations, and Covet's, each in a project of its own with the same models, worked by its commands.

What a tool is given is written as its documentation writes it, and it is called as a shell calls it.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

__all__ = ["PEERS", "Aerich", "Alembic", "Column", "Covet", "Ended", "Models", "Peer", "Tortoise"]

TIMEOUT = 120.0


@dataclass(frozen=True)
class Column:
    """A column of a model.

    Attributes:
        kind: `text`, `integer`, `key`, `big key`, which count, or `reference`.
        to: the model that a reference leads to.
    """

    kind: str = "text"
    length: int = 20
    null: bool = False
    unique: bool = False
    index: bool = False
    to: str = ""
    on_delete: str = "CASCADE"


Models = Mapping[str, Mapping[str, Column]]


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed, errors too."""

    code: int
    out: str

    @property
    def why(self) -> str:
        """The last line that says something, without colours."""
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.out)
        lines = [line.strip() for line in plain.splitlines() if line.strip()]
        # What SQLAlchemy says below its errors.
        lines = [line for line in lines if not line.startswith(("[SQL", "[parameters", "(Background"))]
        telling = [line for line in lines if re.search(r"error|exist|duplicate|cannot|could not", line, re.IGNORECASE)]
        return (telling or lines or [""])[-1][:160].replace("|", "\\|")


class Peer(ABC):
    """A tool with a project.

    Args:
        folder: of the project; it is made.
        url: of the database, as covet-orm writes it.
        python: the interpreter that has the tool.
    """

    name: ClassVar[str]
    distribution: ClassVar[str]
    making: ClassVar[str]
    applying: ClassVar[str]
    recording: ClassVar[str] = ""
    """Python that has the process die in the moment in which a migration is written down as applied."""

    def __init__(self, folder: Path, url: str, python: Path) -> None:
        self.folder = folder
        self.url = url
        self.python = python
        folder.mkdir()
        (folder / "shop").mkdir()
        (folder / "shop" / "__init__.py").touch()

    @abstractmethod
    def write(self, models: Models) -> None:
        """Write the models."""

    @abstractmethod
    def make(self, *, enter: bool = False) -> Ended:
        """Make a migration of what was changed, with no input at all, or at a terminal at which Enter is typed."""

    @abstractmethod
    def apply_command(self) -> Sequence[str]:
        """The arguments of the interpreter that apply migrations."""

    @abstractmethod
    def migrations(self) -> list[Path]:
        """The files of the migrations, the last one at the end."""

    def apply(self, *, dies: bool = False) -> Ended:
        """Apply migrations; in a process that dies when it writes down that one is applied."""
        command = list(self.apply_command())
        if dies:
            code = f"{self.recording}\n{command[1]}" if command[0] == "-c" else ""
            assert code, command
            command = ["-c", code, *command[2:]]
        return self.run(command)

    def start(self) -> subprocess.Popen[bytes]:
        """Begin to apply migrations in a process of its own."""
        return subprocess.Popen(
            [str(self.python), *self.apply_command()], cwd=self.folder, env=self.environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        """The environment of a command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COVET_", "PYTHON"))}
        return {**kept, "PYTHONPATH": ".", "COLUMNS": "300", "NO_COLOR": "1", "AERICH_NO_TORTOISE_V1_WARNING": "1"}

    def run(self, arguments: Sequence[str], *, enter: bool = False) -> Ended:
        """Run the interpreter."""
        command = [str(self.python), *arguments]
        if enter:
            return self._at_terminal(command)
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Ended(-1, f"it had not ended after {TIMEOUT:.0f} seconds")
        return Ended(done.returncode, done.stdout)

    def _at_terminal(self, command: list[str]) -> Ended:
        main, other = pty.openpty()
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment(), stdin=other, stdout=other, stderr=other,
            start_new_session=True,
        )  # fmt: skip
        os.close(other)
        os.write(main, b"\n" * 5)
        printed = b""
        while True:
            try:
                more = os.read(main, 65536)
            except OSError:
                # Linux says so where nobody has the other end any longer.
                break
            printed += more
        os.close(main)
        return Ended(process.wait(TIMEOUT), printed.decode(errors="replace"))

    def put(self, path: str, text: str) -> Path:
        """Write a file of the project."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def last(self) -> str:
        """The text of the last migration; empty where there is none."""
        found = self.migrations()
        return found[-1].read_text(encoding="utf-8") if found else ""

    def numbered(self) -> list[Path]:
        """The files of migrations that begin with a number."""
        return sorted(self.folder.rglob("migrations/**/[0-9]*.py"), key=lambda path: int(path.name.partition("_")[0]))


def call(module: str, function: str, *arguments: str) -> list[str]:
    """The arguments of an interpreter that call a command as its script does."""
    given = ["", *arguments]
    return ["-c", f"import sys\nsys.argv = {given!r}\nfrom {module} import {function} as command\nsys.exit(command())"]


class Covet(Peer):
    """covet-migrate."""

    name = "covet"
    distribution = "covet-migrate"
    making = "covet makemigrations"
    applying = "covet migrate"
    recording = (
        "import os, signal\nfrom covet_migrate.execution.history import History\n"
        "async def dies(*arguments, **options): os.kill(os.getpid(), signal.SIGKILL)\nHistory.record = dies"
    )

    def __init__(self, folder: Path, url: str, python: Path) -> None:
        super().__init__(folder, url, python)
        self.put("covet.toml", f'[storage.default]\nurl = "{url}"\n')
        self.put("app.py", "from covet import Covet\n\nimport shop.models\n\napp = Covet()\n")

    def write(self, models: Models) -> None:
        lines = ["import covet_orm as orm"]
        for name, columns in models.items():
            lines += ["", "", f"class {name}(orm.Model):"]
            lines += [f"    {column} = orm.{self._field(one)}" for column, one in columns.items()]
            lines += ["", "    class Meta:", f'        db_table = "{name.lower()}"']
        self.put("shop/models.py", "\n".join(lines) + "\n")

    def _field(self, one: Column) -> str:
        options = _options(one, "db_index")
        if one.kind == "reference":
            return f'ForeignKey("{one.to}", on_delete=orm.{one.on_delete}{_more(options)})'
        if one.kind == "text":
            return f"CharField(max_length={one.length}{_more(options)})"
        kinds = {"key": "AutoField", "big key": "BigAutoField", "integer": "IntegerField"}
        return f"{kinds[one.kind]}({', '.join(options)})"

    def make(self, *, enter: bool = False, more: Sequence[str] = ()) -> Ended:
        return self.run(call("covet.cli", "main", "makemigrations", *more), enter=enter)

    def apply_command(self) -> Sequence[str]:
        return call("covet.cli", "main", "migrate")

    def migrations(self) -> list[Path]:
        return self.numbered()


class Tortoise(Peer):
    """tortoise-orm, with the migrations that it brings."""

    name = "tortoise"
    distribution = "tortoise-orm"
    making = "tortoise makemigrations"
    applying = "tortoise migrate"
    modules: ClassVar[list[str]] = ["shop.models"]
    recording = (
        "import os, signal\nfrom tortoise.migrations.recorder import MigrationRecorder\n"
        "async def dies(*arguments, **options): os.kill(os.getpid(), signal.SIGKILL)\n"
        "MigrationRecorder.record_applied = dies"
    )

    def __init__(self, folder: Path, url: str, python: Path) -> None:
        super().__init__(folder, url, python)
        parts = urlsplit(url)
        schemes = {"postgresql": "asyncpg", "mariadb": "mysql"}
        rest = parts.path[1:] if parts.scheme == "sqlite" else f"{parts.netloc}{parts.path}"
        connection = f"{schemes.get(parts.scheme, parts.scheme)}://{rest}"
        app = {"models": self.modules, "default_connection": "default", **self.options()}
        config = {"connections": {"default": connection}, "apps": {"shop": app}}
        self.put("settings.py", f"TORTOISE_ORM = {config!r}\n")
        self.prepare()

    def options(self) -> dict[str, str]:
        """Options of the application in the configuration."""
        return {"migrations": "shop.migrations"}

    def prepare(self) -> None:
        """What is to be done once, without models."""
        self.put("shop/models.py", "")
        self.run(self.called("init"))

    def called(self, *arguments: str) -> list[str]:
        """A command."""
        return call("tortoise.cli", "main", "-c", "settings.TORTOISE_ORM", *arguments)

    def write(self, models: Models) -> None:
        lines = ["from tortoise import fields", "from tortoise.models import Model"]
        for name, columns in models.items():
            lines += ["", "", f"class {name}(Model):"]
            lines += [f"    {column} = fields.{self._field(name, one)}" for column, one in columns.items()]
            lines += ["", "    class Meta:", f'        table = "{name.lower()}"']
        self.put("shop/models.py", "\n".join(lines) + "\n")

    def _field(self, model: str, one: Column) -> str:
        options = _options(one, "db_index")
        if one.kind == "reference":
            related = f'related_name="{model.lower()}s"'
            return f'ForeignKeyField("shop.{one.to}", {related}, on_delete=fields.{one.on_delete}{_more(options)})'
        if one.kind == "text":
            return f"CharField(max_length={one.length}{_more(options)})"
        kinds = {"key": "IntField(primary_key=True)", "big key": "BigIntField(primary_key=True)"}
        return kinds.get(one.kind) or f"IntField({', '.join(options)})"

    def make(self, *, enter: bool = False) -> Ended:
        return self.run(self.called("makemigrations"), enter=enter)

    def apply_command(self) -> Sequence[str]:
        return self.called("migrate")

    def migrations(self) -> list[Path]:
        return self.numbered()


class Aerich(Tortoise):
    """aerich, for Tortoise's models."""

    name = "aerich"
    distribution = "aerich"
    making = "aerich migrate"
    applying = "aerich upgrade"
    modules: ClassVar[list[str]] = ["shop.models", "aerich.models"]
    recording = (
        "import os, signal\nfrom aerich.models import Aerich\n"
        "async def dies(*arguments, **options): os.kill(os.getpid(), signal.SIGKILL)\n"
        "Aerich.create = dies"
    )

    def options(self) -> dict[str, str]:
        return {}

    def prepare(self) -> None:
        self.put("shop/models.py", "")
        self.run(call("aerich.cli", "main", "init", "-t", "settings.TORTOISE_ORM"))

    def called(self, *arguments: str) -> list[str]:
        return call("aerich.cli", "main", *arguments)

    def make(self, *, enter: bool = False) -> Ended:
        # The first one makes the tables as well.
        return self.run(self.called("migrate" if self.migrations() else "init-db"), enter=enter)

    def apply_command(self) -> Sequence[str]:
        return self.called("upgrade")


class Alembic(Peer):
    """Alembic with its template for asynchronous drivers, names for constraints and batch mode, as its docs advise."""

    name = "alembic"
    distribution = "alembic"
    making = "alembic revision --autogenerate"
    applying = "alembic upgrade head"
    recording = (
        "import os, signal\nfrom alembic.runtime.migration import HeadMaintainer\n"
        "def dies(*arguments, **options): os.kill(os.getpid(), signal.SIGKILL)\n"
        "HeadMaintainer.update_to_step = dies"
    )
    NAMES = (
        '{"ix": "ix_%(column_0_label)s", "uq": "uq_%(table_name)s_%(column_0_name)s", '
        '"fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s", "pk": "pk_%(table_name)s"}'
    )

    def __init__(self, folder: Path, url: str, python: Path) -> None:
        super().__init__(folder, url, python)
        parts = urlsplit(url)
        drivers = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
        found = drivers.get(parts.scheme, "mysql+aiomysql") + url[len(parts.scheme) :]
        self.run(self.called("init", "-t", "async", "migrations"))
        ini = self.folder / "alembic.ini"
        text = re.sub(r"^sqlalchemy\.url = .*$", lambda _: f"sqlalchemy.url = {found}", ini.read_text(), flags=re.M)
        ini.write_text(text)
        env = self.folder / "migrations" / "env.py"
        text = env.read_text().replace(
            "target_metadata = None", "from shop.models import Base\n\ntarget_metadata = Base.metadata"
        )
        text = text.replace(
            "target_metadata=target_metadata)", "target_metadata=target_metadata, render_as_batch=True)"
        )
        env.write_text(text)

    def called(self, *arguments: str) -> list[str]:
        """A command."""
        return call("alembic.config", "main", *arguments)

    def write(self, models: Models) -> None:
        lines = [
            "from sqlalchemy import BigInteger, ForeignKey, MetaData, String",
            "from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column",
            "", "", "class Base(DeclarativeBase):", f"    metadata = MetaData(naming_convention={self.NAMES})",
        ]  # fmt: skip
        for name, columns in models.items():
            lines += ["", "", f"class {name}(Base):", f'    __tablename__ = "{name.lower()}"']
            for column, one in columns.items():
                known = "str" if one.kind == "text" else "int"
                annotation = f"Mapped[{known}{' | None' if one.null else ''}]"
                label = f"{column}_id" if one.kind == "reference" else column
                lines.append(f"    {label}: {annotation} = mapped_column({self._column(one)})")
        self.put("shop/models.py", "\n".join(lines) + "\n")

    def _column(self, one: Column) -> str:
        options = [f"{option}=True" for option, given in (("unique", one.unique), ("index", one.index)) if given]
        kinds = {
            "key": "primary_key=True", "big key": "BigInteger, primary_key=True", "text": f"String({one.length})",
            "reference": f'ForeignKey("{one.to.lower()}.id", ondelete="{one.on_delete.replace("_", " ")}")',
        }  # fmt: skip
        return ", ".join([*([kinds[one.kind]] if one.kind in kinds else []), *options])

    def make(self, *, enter: bool = False) -> Ended:
        number = f"{len(self.migrations()) + 1:04}"
        return self.run(self.called("revision", "--autogenerate", "-m", "it", "--rev-id", number), enter=enter)

    def apply_command(self) -> Sequence[str]:
        return self.called("upgrade", "head")

    def migrations(self) -> list[Path]:
        return sorted((self.folder / "migrations" / "versions").glob("*.py"))


def _options(one: Column, index: str) -> list[str]:
    given = (("null", one.null), ("unique", one.unique), (index, one.index))
    return [f"{option}=True" for option, wanted in given if wanted]


def _more(options: Sequence[str]) -> str:
    return "".join(f", {option}" for option in options)


PEERS: dict[str, type[Peer]] = {one.name: one for one in (Covet, Tortoise, Aerich, Alembic)}
"""The tools, by name."""
