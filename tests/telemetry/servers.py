"""Servers on loopback that answer as a test needs, and certificates for them."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

Answer = Callable[[socket.socket], None]


@dataclass
class Server:
    """A server on loopback: its port, and the requests that it got."""

    port: int
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def server(answer: Answer, tls: ssl.SSLContext | None = None, read: bool = True) -> Iterator[Server]:
    """Answers each connection with ``answer(socket)``, after the request unless ``read`` is false."""
    listener = socket.create_server(("127.0.0.1", 0))
    found, ended = Server(listener.getsockname()[1]), threading.Event()

    def serve(connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection:
            stream = tls.wrap_socket(connection, server_side=True) if tls else connection
            with stream:
                if read:
                    found.requests.append(read_request(stream))
                answer(stream)

    def accept() -> None:
        with suppress(OSError):
            while not ended.is_set():
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield found
    ended.set()
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def read_request(stream: socket.socket) -> bytes:
    """One request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += (more := stream.recv(65536))
        if not more:
            return data
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(lengths[0].split(b":")[1]) if lengths else 0
    while len(body) < length:
        body += stream.recv(65536)
    return head + b"\r\n\r\n" + body


def replies(status: str, headers: str = "", body: bytes = b"") -> Answer:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return lambda stream: stream.sendall(head.encode() + body)


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """A server's context with a certificate of its own for ``name``; the certificate is in ``folder/name.pem``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    try:
        other: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        other = x509.DNSName(name)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([other]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return context
