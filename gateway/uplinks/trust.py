"""TLS as an uplink speaks it: one context for those who connect and for those who look whether one could."""

from __future__ import annotations

import ssl

from gateway.uplinks.options import Tls


def context_of(tls: Tls) -> ssl.SSLContext:
    """The context of these settings, files read anew. Raises OSError that names the file."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:
        raise OSError(f"tls.ca {tls.ca}: {error.strerror or error}") from error
    if tls.cert is not None:
        try:
            # Without a password OpenSSL asks on the terminal for that of an encrypted key, and all would wait for it.
            context.load_cert_chain(tls.cert, tls.key, password="")
        except OSError as error:
            raise OSError(f"tls.cert {tls.cert}, tls.key {tls.key or ''}: {error.strerror or error}") from error
    if tls.alpn:
        context.set_alpn_protocols(tls.alpn)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
