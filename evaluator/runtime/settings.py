"""Where things are: brokers, topic names, ports, logs (docs/contracts.md, 1). What is judged is in the rules.

Defaults < `settings.yaml` < environment < what the command line says. All of it is strict: a setting that
nobody knows would be one that does nothing. No other module reads the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)  # fmt: skip
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource, SettingsConfigDict

from evaluator.core.event import DurationUs
from evaluator.errors import ConfigError
from evaluator.runtime.intake import MAX_REJECTED
from evaluator.wire.config.duration import parse_duration
from evaluator.wire.config.finding import did_you_mean, dotted, shown
from evaluator.wire.config.ratio import parse_ratio
from evaluator.wire.config.yaml12 import Document, parse

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from pydantic_settings import PydanticBaseSettingsSource

PREFIX = "EVALUATOR_"

_FOREIGN = re.compile(r"EVALUATOR_(TEST_.*|SERVICE_(HOST|PORT.*)|PORT(_[0-9]+_(TCP|UDP)(_.*)?)?)")
"""Ours by the prefix only: what tests need, and what Kubernetes sets in every pod beside a service `evaluator`."""

Location = tuple[str | int, ...]

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # only where it was asked for

MAX_SHARDS = 1000
"""Each shard is a partition and a transactional producer; one process carries hundreds, not thousands."""


def _duration(written: object) -> DurationUs:
    duration = parse_duration(written)
    if duration <= 0:
        message = "expected a duration above 0"
        raise ValueError(message)
    return duration


Duration = Annotated[DurationUs, BeforeValidator(_duration)]
Ratio = Annotated[Fraction, BeforeValidator(parse_ratio)]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Section):
    """How to reach the brokers. Secrets are files, so that they show in no process list and no dump."""

    bootstrap_servers: Annotated[str, Field(min_length=1)] = "localhost:9092"
    create_topics: bool = False
    replication_factor: Annotated[int, Field(ge=1, le=100)] | None = None
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> KafkaSettings:
        needed = ("sasl_mechanism", "username", "password_file")
        missing = [name for name in needed if getattr(self, name) is None]
        if self.security_protocol.startswith("SASL") and missing:
            message = f"security_protocol {self.security_protocol} also needs {', '.join(missing)}"
            raise ValueError(message)
        if (self.cert_file is None) != (self.key_file is None):
            message = "cert_file and key_file are needed both or not at all"
            raise ValueError(message)
        return self

    def password(self) -> SecretStr | None:
        """What `password_file` holds, without the newline at its end. Raises `ConfigError`."""
        if self.password_file is None:
            return None
        return SecretStr(_read(self.password_file, "kafka.password_file").rstrip("\r\n"))


class TopicSettings(_Section):
    """The names of the public topics."""

    alerts: Topic = "slo.alerts"
    status: Topic = "slo.status"
    verdicts: Topic = "slo.verdicts"
    dlq: Topic = "slo.dlq"
    control: Topic = "slo.control"


class WebSettings(_Section):
    """Where the page and the metrics are served, and what is pointed out there.

    `max_rejected` is a ratio, 0 to 1: a source of whose events more were rejected lately is flagged.
    """

    listen: str = "127.0.0.1:10095"
    max_rejected: Ratio = MAX_REJECTED

    @field_validator("listen")
    @classmethod
    def _has_host_and_port(cls, listen: str) -> str:
        host, colon, port = listen.rpartition(":")
        bare = ":" in host and not (host.startswith("[") and host.endswith("]"))
        if not colon or bare or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 0xFFFF:  # noqa: PLR2004  # ports
            message = "expected HOST:PORT, such as 127.0.0.1:10095, [::1]:10095 or :10095 for every interface"
            raise ValueError(message)
        return listen

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; no host means every interface."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]") or _EVERYWHERE[0], int(port)


class LogSettings(_Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class StateSettings(_Section):
    """Whether state is written so that the release before cannot read it any more."""

    finalize: bool = False


class Settings(BaseSettings):
    """The settings of a process. Durations are in microseconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=False
    )

    app_id: Topic = "evaluator"
    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    shards: int = Field(16, ge=1, le=MAX_SHARDS)
    commit_interval: Duration = DurationUs(1_000_000)
    state_interval: Duration = DurationUs(5_000_000)
    state: StateSettings = StateSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()
    blind_alert: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)] = "page"
    external_url: str | None = Field(None, pattern=r"^https?://[^\s/][^\s]*$")

    @property
    def url(self) -> str:
        """Where others find the page: `external_url`, or else the address that it listens on."""
        return self.local_url if self.external_url is None else self.external_url.rstrip("/")

    @property
    def local_url(self) -> str:
        """Where this machine finds the page."""
        host, port = self.web.address
        if host in _EVERYWHERE:
            host = "127.0.0.1"
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Environment(EnvSettingsSource):
    """The environment that it is given, not the process's own."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items()}


def load(
    file: Path | None = None, environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """The settings of this process. Raises `ConfigError`, one line for each thing to fix.

    `environ` is the process's own where it is not given; an empty variable counts as none. `overrides` is
    nested as the settings are.
    """
    given = {n: v for n, v in (os.environ if environ is None else environ).items() if n.startswith(PREFIX) and v}
    ours = {name: value for name, value in given.items() if not _FOREIGN.fullmatch(name)}
    document = Document("") if file is None else parse(_read(file, "settings"), str(file))
    known = {_variable(path): path for path in _paths(Settings)}
    found = [*map(str, document.findings), *(_unknown(name, known) for name in ours if name not in known)]
    values = document.value if isinstance(document.value, dict) else {}
    if document.value is not None and not isinstance(document.value, dict):
        found.append(f"{document.file}: expected a mapping of settings, found {shown(document.value)}")
    if found:
        raise ConfigError("\n".join(found))

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic's signature
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic's signature
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic's signature
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """Command line, environment, file; defaults come last by themselves."""
            return init_settings, _Environment(settings_cls, ours), InitSettingsSource(settings_cls, values)

    try:
        return Sourced(**(overrides or {}))
    except ValidationError as error:
        lines = [_line(bad, document, ours, overrides or {}) for bad in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def no_color(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the user wants no colours (https://no-color.org)."""
    return bool((os.environ if environ is None else environ).get("NO_COLOR"))


def _paths(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """The path of every setting: `("kafka", "username")`."""
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from ((name, *path) for path in _paths(section))
        else:
            yield (name,)


def _variable(path: Location) -> str:
    return PREFIX + "__".join(map(str, path)).upper()


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"{name}: unknown setting{did_you_mean(name, known)}"


def _line(bad: ErrorDetails, document: Document, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> str:
    """Where the setting was given, what is wrong with it, what was found."""
    path = bad["loc"]
    message = bad["msg"].removeprefix("Value error, ")
    if bad["type"] == "extra_forbidden":
        siblings = (known[len(path) - 1] for known in _paths(Settings) if known[: len(path) - 1] == path[:-1])
        message = f"unknown key{did_you_mean(str(path[-1]), siblings)}"
    elif bad["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, found {shown(bad['input'])}"
    return f"{_origin(path, document, environ, overrides)}: {message}"


def _origin(path: Location, document: Document, environ: Mapping[str, str], overrides: Mapping[str, Any]) -> str:
    given: Any = overrides
    for part in path:
        given = given.get(part) if isinstance(given, Mapping) else None
    if given is None and _variable(path) in environ:
        return _variable(path)
    place = document.keys.get(path)
    if given is None and place is not None:
        return f"{place.file}:{place.line}:{place.column}: {dotted(path)}"
    return dotted(path)


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        message = f"cannot read {what} from {path}: {reason}"
        raise ConfigError(message) from None
