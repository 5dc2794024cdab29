"""What kept this side from a server, a broker or a relay, in words: whose fault it is, and what to do."""

from __future__ import annotations

import socket
import ssl

OF_ANOTHER_TIME = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
OF_AN_UNKNOWN_ISSUER = {18, 19, 20, 21}  # self-signed, such a one in the chain, no issuer, no way to verify the first
TOO_OLD = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"}  # from here, and from there
NO_TLS = "does not speak TLS there"


def describe(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            reason, hint = error.verify_message.rstrip("."), ""
            if error.verify_code in OF_ANOTHER_TIME:
                hint = ": is the clock of this computer right?"
            elif error.verify_code in OF_AN_UNKNOWN_ISSUER:
                hint = ": if it is one of your own, name its issuer by ?ca=FILE"
            return f"its certificate cannot be trusted ({reason}{hint})"
        case ssl.SSLEOFError():
            return f"it hung up, or {NO_TLS}"
        case ssl.SSLError():
            return refusal(error) or f"it {NO_TLS}"
        case socket.gaierror():
            return "its name cannot be resolved"
        case TimeoutError():
            return "no answer"
        case ConnectionRefusedError():
            return "refused"
        case OSError():
            return error.strerror or str(error) or "connection lost"
        case _:
            return f"it does not speak MQTT ({type(error).__name__})"


def refusal(error: ssl.SSLError) -> str:
    """Why the two agree on no TLS, which the server does speak; "" if it is something else."""
    reason = error.reason or ""  # None of those that are no error, such as SSLWantReadError
    if reason in TOO_OLD:
        return "it speaks no TLS that is still safe, 1.2 or later"
    what = reason.partition("ALERT_")[2].replace("_", " ").lower()
    if what == "certificate required":
        return "it wants a certificate of its clients, and udpsend has none"
    return f"it refused TLS ({what})" if what else ""
