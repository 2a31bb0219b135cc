"""What migrations do: `operations.AddField("Post", "slug", orm.SlugField(max_length=50))`."""

from covet_migrate.operations.base import Change, Operation
from covet_migrate.operations.fields import AddField, AlterField, FieldOperation, RemoveField, RenameField
from covet_migrate.operations.indexes import (
    AddConstraint,
    AddIndex,
    DefinitionOperation,
    RemoveConstraint,
    RemoveIndex,
    RenameIndex,
    ValidateConstraint,
)
from covet_migrate.operations.models import (
    AlterModelOptions,
    AlterModelTable,
    AlterModelTableComment,
    AlterUniqueTogether,
    CreateModel,
    DeleteModel,
    ModelOperation,
    RenameModel,
)
from covet_migrate.operations.postgresql import CreateCollation, CreateExtension, CreateSequence
from covet_migrate.operations.running import RunPython, RunSQL, SeparateDatabaseAndState
from covet_migrate.operations.syncing import StopSyncFields, SyncFields
from covet_migrate.operations.views import CreateView, DropView
from covet_migrate.operations.wrapping import Online, Reviewed, Wrapping, unwrapped

__all__ = [
    "AddConstraint",
    "AddField",
    "AddIndex",
    "AlterField",
    "AlterModelOptions",
    "AlterModelTable",
    "AlterModelTableComment",
    "AlterUniqueTogether",
    "Change",
    "CreateCollation",
    "CreateExtension",
    "CreateModel",
    "CreateSequence",
    "CreateView",
    "DefinitionOperation",
    "DeleteModel",
    "DropView",
    "FieldOperation",
    "ModelOperation",
    "Online",
    "Operation",
    "RemoveConstraint",
    "RemoveField",
    "RemoveIndex",
    "RenameField",
    "RenameIndex",
    "RenameModel",
    "Reviewed",
    "RunPython",
    "RunSQL",
    "SeparateDatabaseAndState",
    "StopSyncFields",
    "SyncFields",
    "ValidateConstraint",
    "Wrapping",
    "unwrapped",
]
