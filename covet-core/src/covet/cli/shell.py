"""`covet shell`: a Python prompt inside the running application."""

from __future__ import annotations

import sys
from code import InteractiveConsole
from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Literal

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure, describe_error
from covet.cli.targets import load_application, target_argument

if TYPE_CHECKING:
    from anyio import CancelScope

    from covet.applications import Covet

__all__ = ["shell"]


@command(
    "shell", example="covet shell\ncovet shell -c 'print(len(app.routes))'\necho 'app.url_for(\"index\")' | covet shell"
)
@target_argument
@click.option("-c", "--command", "code", metavar="CODE", help="Run this instead of asking; `await` works in it.")
@click.option("--backend", type=click.Choice(["asyncio", "trio"]), default="asyncio", help="The event loop.")
def shell(target: str | None, code: str | None, backend: Literal["asyncio", "trio"]) -> None:
    """Open a Python prompt with the application running: plugins started, storages open, `await` at the top level.

    `app` is the application. Ctrl-D ends the prompt and stops the application.
    """
    import anyio

    app = load_application(target)
    try:
        ended = anyio.run(_run, app, code, backend=backend)
    except Exception as error:
        from covet.exceptions import CovetError

        if isinstance(error, CovetError):
            raise
        raise Failure(f"the application failed: {describe_error(error)}") from error
    if ended:
        raise click.exceptions.Exit(ended)


async def _run(app: Covet, code: str | None) -> int:
    import anyio
    from anyio import from_thread, to_thread

    ended = 0
    async with app.running(), anyio.create_task_group() as group:
        console = Console({"app": app, "__name__": "__console__", "__doc__": None}, from_thread.run)
        run: Callable[[], int] = console.converse if code is None else partial(console.run_once, code)
        if code is None:
            group.start_soon(console.watch_interrupts)
        ended = await to_thread.run_sync(run, abandon_on_cancel=True)
        group.cancel_scope.cancel()
    return ended


class Console(InteractiveConsole):
    """A prompt in a thread, whose statements run in the event loop."""

    def __init__(self, names: dict[str, Any], run_in_loop: Any) -> None:
        import ast

        super().__init__(names, filename="<console>")
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._run_in_loop = run_in_loop
        self._running: CancelScope | None = None
        self._failed = False
        self._exit: SystemExit | None = None

    def converse(self) -> int:
        """Ask for statements until the end of the input; the exit code."""
        interactive = sys.stdin.isatty()
        if interactive:
            try:
                import readline  # noqa: F401 - makes input() editable
            except ImportError:
                click.echo("(no line editing: this Python has no readline)", err=True)
        else:
            sys.ps1 = sys.ps2 = ""
        from covet import __version__

        banner = f"covet {__version__}, Python {sys.version.split()[0]}: `app` is running, `await` works, Ctrl-D ends."
        try:
            self.interact(banner=banner if interactive else "", exitmsg="")
        except SystemExit as left:
            return _exit_code(left)
        return 0 if interactive else int(self._failed)

    def run_once(self, source: str) -> int:
        """Run some statements; the exit code."""
        try:
            compiled = self.compile.compiler(source, "<command>", "exec")
        except (SyntaxError, ValueError, OverflowError):
            self.showsyntaxerror("<command>")
            return 1
        try:
            self.runcode(compiled)
        except SystemExit as left:
            return _exit_code(left)
        return int(self._failed)

    def runcode(self, code: CodeType) -> None:
        """Run a compiled statement in the event loop, and wait for it."""
        error = self._run_in_loop(self._execute, code)
        if isinstance(error, SystemExit):
            raise error
        if error is not None:
            self._failed = True
            # The first frame is this module's.
            try:
                raise error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
            except BaseException:  # noqa: BLE001 - it is shown
                self.showtraceback()

    async def _execute(self, code: CodeType) -> BaseException | None:
        # Errors are handed over, not raised: an event loop ends itself on a SystemExit or KeyboardInterrupt in a task.
        import anyio

        with anyio.CancelScope() as self._running:
            try:
                result = FunctionType(code, self.locals)()
                if hasattr(result, "__await__"):
                    await result
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 - it is handed over
                return error
        return KeyboardInterrupt() if self._running.cancelled_caught else None

    async def watch_interrupts(self) -> None:
        """Let Ctrl-C cancel the statement that runs."""
        import signal

        import anyio

        with anyio.open_signal_receiver(signal.SIGINT) as signals:
            async for _ in signals:
                if self._running is not None:
                    self._running.cancel()


def _exit_code(left: SystemExit) -> int:
    if left.code is None or isinstance(left.code, int):
        return left.code or 0
    click.echo(left.code, err=True)
    return 1
