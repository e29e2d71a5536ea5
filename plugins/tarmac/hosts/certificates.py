"""The stack's own certificate authority: signs its client certificate and those of machines that are reached by TLS.

Its private key lies beside the SSH key, in a volume that only the scheduler's container has. A machine's private key is
kept nowhere here: it is in the bundle that is made for it.
"""

from __future__ import annotations

import ipaddress
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tarmac.base.errors import HostError
from tarmac.hosts import link

OWN_DAYS, HOST_DAYS = 20 * 365, 397
"""For how long the stack's own certificates and a machine's are valid."""

# A clock that is behind by less takes a certificate that was made just now.
_EARLIER = timedelta(days=1)


@dataclass(frozen=True)
class Bundle:
    """What a machine needs, as PEM, and until when its certificate is valid."""

    ca: str
    certificate: str
    key: str
    ends: datetime


def for_host(name: str, host: str, days: int = HOST_DAYS) -> Bundle:
    """Make a certificate and its key for a machine; at the first call the stack's authority, too.

    Args:
        name: what the host is called here.
        host: the name or the address by which it is reached: the certificate is valid for this alone.
        days: for how long.
    """
    _ensure()
    own = link.tls_files()
    authority = x509.load_pem_x509_certificate((own / "ca.pem").read_bytes())
    signer = load_pem_private_key((own / "ca.key").read_bytes(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise HostError(f"{own / 'ca.key'} is not the key that this stack has made.")
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(_now() + timedelta(days=days), authority.not_valid_after_utc)
    usage = ExtendedKeyUsageOID.SERVER_AUTH  # no machine is let in by another one with it
    certificate = _signed(name, key, authority, signer, ends, usage, host)
    return Bundle(_pem(authority), _pem(certificate), _pem_key(key), ends)


def _ensure() -> None:
    if link.tls_files().exists():
        return
    # Made under another name first: one that is there is whole.
    with tempfile.TemporaryDirectory(dir=link.KEYS) as scratch:
        new = Path(scratch) / "tls"
        new.mkdir(mode=0o700)
        key, ends = ec.generate_private_key(ec.SECP256R1()), _now() + timedelta(days=OWN_DAYS)
        authority = _signed("Tarmac", key, None, key, ends, None, None)
        own = ec.generate_private_key(ec.SECP256R1())
        client = _signed("tarmac", own, authority, key, ends, ExtendedKeyUsageOID.CLIENT_AUTH, None)
        for file, text in (
            ("ca.pem", _pem(authority)),
            ("ca.key", _pem_key(key)),
            ("client.pem", _pem(client) + _pem_key(own)),
        ):
            with open(os.open(new / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as written:
                written.write(text)
        try:
            new.rename(link.tls_files())
        except OSError:
            if not link.tls_files().exists():  # else another call was first
                raise


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
    ends: datetime,
    usage: x509.ObjectIdentifier | None,
    host: str | None,
) -> x509.Certificate:
    """Sign a certificate; without `authority` and `usage` that of an authority itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject if authority else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _EARLIER)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=usage is None, path_length=0 if usage is None else None), critical=True)
        .add_extension(_key_usage(signs=usage is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if host is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(host)]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _pem_key(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _now() -> datetime:
    return datetime.now(UTC)
