"""The MLflow model registry as promotion sees it: versions, aliases, tags and files of one registered model.

Whether a version may have an alias belongs in `gate.py`, moving it under a lock in `promote.py`, keeping copies of
files that are elsewhere in `fetched_files.py`. Nothing here loads a model or unpickles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from osmf_models.evaluation.evaluation_record import RECORDS_NAME, EvaluationRecord, read_records
from osmf_models.file_hashes import folder_digest
from osmf_models.records import ARTIFACT_TAG, PACKAGE_TAG, REGISTRY_FILES
from osmf_pipelines.promotion.audit import Aliases
from osmf_pipelines.promotion.fetched_files import kept_copy
from osmf_pipelines.resources.tracking import tracking_client

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from osmf_pipelines.settings import Settings

CHAMPION, CHALLENGER = "champion", "challenger"
_SQLITE = "sqlite:///"
_LOCAL = ("", "file")  # schemes of files on this machine
_Told = TypeVar("_Told")


class RegistryError(RuntimeError):
    """The registry cannot be reached, or lacks what is asked for; the message says what to do."""


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of the model.

    Attributes:
        number: of the version.
        source: URI of its files.
        artifact_sha256: hash over the model's own files when it was registered; empty where the version does not say.
        package_sha256: hash over all its files, code too, when it was registered.
    """

    number: int
    source: str
    artifact_sha256: str
    package_sha256: str


@dataclass(frozen=True)
class Package:
    """The files of a version as they are now.

    Attributes:
        folder: where they lie on this machine.
        artifact_sha256: hash over the model's own files.
        package_sha256: hash over all of them.
    """

    folder: Path
    artifact_sha256: str
    package_sha256: str

    @property
    def model_folder(self) -> Path:
        """The saved pipeline."""
        return self.folder / "artifacts" / "model"

    def hashes(self) -> dict[str, Any]:
        """Returns both hashes by name."""
        return {ARTIFACT_TAG: self.artifact_sha256, PACKAGE_TAG: self.package_sha256}

    def changes_since(self, version: RegisteredVersion) -> tuple[str, ...]:
        """Returns what says that these are not the files that were registered."""
        if not version.artifact_sha256 or not version.package_sha256:
            return ("it was registered without the hashes of its files: register it again",)
        if (version.artifact_sha256, version.package_sha256) != (self.artifact_sha256, self.package_sha256):
            return ("its files have changed since it was registered (sha256 differs): register it again",)
        return ()

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that it was trained with."""
        from mlflow.models import Model

        return dict((Model.load(str(self.folder)).metadata or {}).get("config", {}))

    @property
    def has_records(self) -> bool:
        """Whether it was registered with its evaluation."""
        return (self.folder / "artifacts" / RECORDS_NAME).is_file()

    def records(self) -> dict[str, EvaluationRecord]:
        """Returns what the evaluation said of each of its models, by arm.

        Raises:
            ValueError: when the version was registered without one, or it is broken.
        """
        return read_records(self.folder / "artifacts" / RECORDS_NAME)


class Registry:
    """One registered model.

    Args:
        settings: where the registry is, and the model's name.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.name = settings.model_name

    def aliases(self) -> Aliases:
        """Returns which versions are champion and challenger.

        Raises:
            RegistryError: when the registry cannot be reached or knows no such model.
        """
        found = self._ask(lambda client: client.get_registered_model(self.name).aliases)
        numbers = {alias: int(number) for alias, number in found.items()}
        return Aliases(numbers.get(CHAMPION), numbers.get(CHALLENGER))

    def is_registered(self) -> bool:
        """Returns whether there is a registry that knows the model."""
        path = self._sqlite_path
        if path is not None and not path.is_file():
            return False
        return bool(self._ask(lambda client: client.search_registered_models(f"name = '{self.name}'")))

    def version(self, number: int) -> RegisteredVersion:
        """Returns a version.

        Raises:
            RegistryError: when there is none of that number.
        """
        found = self._ask(lambda client: client.search_model_versions(f"name = '{self.name}'"))
        known = {int(one.version): one for one in found}
        if number not in known:
            listed = ", ".join(map(str, sorted(known))) or "none"
            raise RegistryError(f"{self.name} has no version {number}: it has {listed}.")
        tags = known[number].tags
        return RegisteredVersion(
            number, str(known[number].source), tags.get(ARTIFACT_TAG, ""), tags.get(PACKAGE_TAG, "")
        )

    def package(self, version: RegisteredVersion) -> Package:
        """Returns the files of a version, hashed: where MLflow keeps them, or a copy in HOME where that is elsewhere.

        Raises:
            RegistryError: when they cannot be had.
        """
        uri = self._ask(lambda client: client.get_model_version_download_uri(self.name, str(version.number)))
        if urlsplit(uri).scheme in _LOCAL:
            folder = self._fetch(version, None)
        else:
            copies = self.settings.home.absolute() / "registry_files"
            folder = kept_copy(copies, partial(self._fetch, version))
        return Package(
            folder,
            folder_digest(folder / "artifacts" / "model", relative_to=folder / "artifacts"),
            folder_digest(folder, without=REGISTRY_FILES),
        )

    def _fetch(self, version: RegisteredVersion, target: Path | None) -> Path:
        """Copies the files of a version into a folder; returns where they are. None: they are on this machine."""
        import mlflow

        mlflow.set_tracking_uri(self.settings.tracking_uri)
        mlflow.set_registry_uri(self.settings.tracking_uri)
        into = None if target is None else str(target)
        try:
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=version.source, dst_path=into))
        except Exception as error:
            raise RegistryError(
                f"the files of {self.name} version {version.number} cannot be fetched from {version.source} "
                f"({type(error).__name__}): restore them, or register the model again."
            ) from error

    def set_alias(self, alias: str, number: int | None) -> None:
        """Gives an alias to a version, or takes it away."""
        if number is None:
            self._ask(lambda client: client.delete_registered_model_alias(self.name, alias))
        else:
            self._ask(lambda client: client.set_registered_model_alias(self.name, alias, str(number)))

    def tag(self, number: int, tags: dict[str, str]) -> None:
        """Sets tags of a version."""

        def set_all(client: MlflowClient) -> None:
            for key, value in tags.items():
                client.set_model_version_tag(self.name, str(number), key, value)

        self._ask(set_all)

    @cached_property
    def _client(self) -> MlflowClient:
        path = self._sqlite_path
        if path is not None and not path.is_file():
            raise RegistryError(
                f"there is no registry at {path} yet: materialise registered_model first, or set OSMF_MLFLOW_URI."
            )
        return tracking_client(self.settings)

    def _ask(self, question: Callable[[Any], _Told]) -> _Told:
        """Returns the registry's answer; whatever goes wrong becomes a `RegistryError`."""
        try:
            return question(self._client)
        except RegistryError:
            raise
        except Exception as error:
            if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                raise RegistryError(
                    f"the registry has no model {self.name}: materialise registered_model first, "
                    "or set OSMF_MODEL_NAME."
                ) from error
            raise RegistryError(
                f"the model registry ({self._shown_uri}) cannot be reached ({type(error).__name__}): "
                "start it, or set OSMF_MLFLOW_URI to where it is."
            ) from error

    @property
    def _sqlite_path(self) -> Path | None:
        uri = self.settings.tracking_uri
        return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None

    @property
    def _shown_uri(self) -> str:
        """The address without a password."""
        parts = urlsplit(self.settings.tracking_uri)
        return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
