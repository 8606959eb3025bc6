"""A private certificate authority, made by the openssl program; without it the tests that need one are skipped."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

NAME: Final = "Stadtwerk Test CA"
MISSING: Final = "the program openssl is missing: apt-get install openssl brings it"

_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_CONFIG: Final = """
[ca]
default_ca = own
[own]
new_certs_dir = .
database = index.txt
rand_serial = yes
certificate = ca.pem
private_key = ca.key
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""


@dataclass(frozen=True)
class Certificate:
    """The files of a server's certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates that only those trust who know its file."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip(MISSING)
        self._folder = folder
        self.file = folder / "ca.pem"
        (folder / "ca.conf").write_text(_CONFIG)
        (folder / "index.txt").touch()
        subject = ("-subj", f"/O=Stadtwerk/CN={NAME}", "-days", "3650")
        self._openssl("req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.pem", *subject)

    def issue(self, *names: str, begins: str = "20200101000000Z", ends: str = "20491231000000Z") -> Certificate:
        """Return a certificate for DNS names, valid from and to the given times."""
        stem = f"{names[0]}-{ends}"
        listed = ",".join(f"DNS:{name}" for name in names)
        subject = ("-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={listed}")
        self._openssl("req", *_KEY, "-keyout", f"{stem}.key", "-out", f"{stem}.csr", *subject)
        span = ("-startdate", begins, "-enddate", ends)
        self._openssl(
            "ca", "-batch", "-notext", "-config", "ca.conf", "-in", f"{stem}.csr", "-out", f"{stem}.pem", *span
        )
        return Certificate(certificate=self._folder / f"{stem}.pem", key=self._folder / f"{stem}.key")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True)  # noqa: S607
