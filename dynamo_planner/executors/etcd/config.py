"""The configuration of the router whose knobs are in etcd."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from dynamo_planner.core.values import Frozen
from dynamo_planner.executors import Executor

if TYPE_CHECKING:
    from dynamo_planner.executors.etcd.router import WithRouter


class RouterConfig(Frozen):
    """Set the knobs that Dynamo's disaggregated router watches in etcd (extra ``etcd``).

    Args:
        url: The address of etcd.
        namespace: The Dynamo namespace of a Python router. Default none.
        model: The model of a Rust router; this or ``namespace``. Default none.
        user: A user of etcd. Default none.
        password_file: A file with the user's password. Default none.
        ca_file: The certificates to trust. Default: those of the system.
        cert_file: The client's certificate, where etcd asks for one. Default none.
        key_file: The key of the client's certificate. Default none.
        timeout_s: Seconds to wait for an answer. Default 3.
    """

    url: str = Field(pattern=r"^https?://[^@]+$")
    namespace: str | None = Field(default=None, min_length=1)
    model: str | None = Field(default=None, min_length=1)
    user: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    timeout_s: float = Field(default=3.0, gt=0)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if (self.namespace is None) == (self.model is None):
            raise ValueError("namespace (the Python router's) or model (the Rust router's): give one of the two")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together: give both or none")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both or none")
        return self

    def build(self, executor: Executor) -> WithRouter:
        """The executor with the knobs of the router beside its own. Raises ``ValueError`` where a file is unusable."""
        from dynamo_planner.executors.etcd.client import Etcd  # noqa: PLC0415  # needs the extra
        from dynamo_planner.executors.etcd.router import RouterKnobs, WithRouter  # noqa: PLC0415

        try:
            password = None if self.password_file is None else self.password_file.read_text().rstrip("\r\n")
            tls = self._tls()
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"a file does not read: {error}") from error
        etcd = Etcd(self.url, user=self.user, password=password, tls=tls, timeout_s=self.timeout_s)
        return WithRouter(executor, RouterKnobs(etcd, namespace=self.namespace, model=self.model))

    def _tls(self) -> ssl.SSLContext | None:
        if self.ca_file is None and self.cert_file is None:
            return None
        tls = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file is not None:
            tls.load_cert_chain(self.cert_file, self.key_file)
        return tls
