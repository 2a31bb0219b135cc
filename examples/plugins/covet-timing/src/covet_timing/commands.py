"""`covet timing`: the report of a running application, as a table."""

from __future__ import annotations

from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import click
import msgspec
from covet.cli import Failure, print_json, print_table

from covet_timing.histograms import Report, RouteTimes

COLUMNS = ("count", "errors", "mean", "p50", "p90", "p99", "max")
TIMEOUT = 10.0
MAX_REPORT = 10 * 2**20


@click.command(epilog="\b\nExample:\n  covet timing http://127.0.0.1:8000 --sort p99")
@click.argument("url", required=False)
@click.option("--sort", type=click.Choice(COLUMNS), default="count", help="The column to sort by, largest first.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def timing(url: str | None, sort: str, as_json: bool) -> None:
    """Show how long requests took, by route, in a running application.

    URL is where the application answers; by default what [server] in the settings says. The numbers are those of the
    worker process that answers.
    """
    address = report_address(url)
    report = fetch(address)
    if as_json:
        print_json(msgspec.to_builtins(report))
        return
    if not report.routes:
        click.echo(f"No requests yet, after {report.seconds:.0f} seconds.")
        return
    field = sort if sort in ("count", "errors") else f"{sort}_ms"
    routes = sorted(report.routes, key=lambda times: getattr(times, field), reverse=True)
    print_table(
        ["method", "route", *(name if name in ("count", "errors") else f"{name} ms" for name in COLUMNS)],
        [_row(times) for times in routes],
    )


def report_address(url: str | None) -> str:
    """The address of the report: the application's, with the path of the plugin's settings unless it has one."""
    from covet import Settings

    settings = Settings.load()
    if url is None:
        host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
        url = f"http://{host}:{settings.server.port}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise click.UsageError(f"{url!r} is no address of an application, such as http://127.0.0.1:8000")
    path = settings.plugin_tables.get("timing", {}).get("path", "/timing")
    return url if parts.path.strip("/") else url.rstrip("/") + path


def fetch(address: str) -> Report:
    """Ask an application for its report.

    Raises:
        Failure: it does not answer, or with something else.
    """
    try:
        with urlopen(address, timeout=TIMEOUT) as response:
            return msgspec.json.decode(response.read(MAX_REPORT), type=Report)
    except HTTPError as error:
        error.close()
        raise Failure(
            f"{address} answers {error.code}: is the plugin active there, and its path right? "
            "`covet plugins show timing` tells"
        ) from error
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise Failure(f"{address} does not answer ({reason}); start the application with `covet run`") from error
    except msgspec.MsgspecError as error:
        raise Failure(f"{address} answers with something else than the report of covet-timing: {error}") from error


def _row(times: RouteTimes) -> list[str]:
    spans = (times.mean_ms, times.p50_ms, times.p90_ms, times.p99_ms, times.max_ms)
    return [times.method, times.route, str(times.count), str(times.errors), *(f"{span:.2f}" for span in spans)]
