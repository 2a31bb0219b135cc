"""TLS to a server: an `ssl.SSLContext` out of the driver's settings."""

from __future__ import annotations

import ssl

from covet.exceptions import ConfigurationError
from covet_orm.drivers.options import ServerOptions

__all__ = ["tls_context"]


def tls_context(options: ServerOptions) -> ssl.SSLContext | None:
    """The context for a driver's settings, or None for none. `prefer` and `require` take any certificate, as in libpq.

    Raises:
        ConfigurationError: a file cannot be read, or holds no certificate or key.
    """
    if options.tls == "disable":
        return None
    try:
        context = ssl.create_default_context(cafile=options.tls_ca or None)
        if options.tls_certificate:
            context.load_cert_chain(options.tls_certificate, options.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (options.tls_ca, options.tls_certificate, options.tls_key)))
        raise ConfigurationError(f"the files for TLS ({files}) cannot be used: {error}") from error
    context.check_hostname = options.tls == "verify-full"
    if options.tls in ("prefer", "require"):
        context.verify_mode = ssl.CERT_NONE
    return context
