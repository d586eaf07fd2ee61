"""Every setting of a lake, read from environment variables `OSMF_*`; one object, passed down, never read twice.

Settings of a training run are recipes (`osmf_models/recipes.py`), not settings.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from osmf_pipelines.resources.launchers import parse_cancel_command, parse_launch_command, read_hostfile

_CHECKOUT = Path(__file__).resolve().parent.parent
DEFAULT_USER_KEY = "osmf"
# Results must not depend on them: hashes of days are over UTC, and a speculative task writes twice.
_FIXED_SPARK_CONF = {"spark.sql.session.timeZone": "UTC", "spark.speculation": "false"}


def _check_is_absolute(info: ValidationInfo) -> None:
    """A relative path is another one where the training command may start."""
    if "home" in info.data and not info.data["home"].is_absolute():
        raise ValueError(f"needs an absolute OSMF_HOME, and that is {info.data['home']}: give its whole path")


class Settings(BaseSettings):
    """Where things are and how the logs are read; every field is `OSMF_<FIELD>` in the environment."""

    model_config = SettingsConfigDict(env_prefix="OSMF_", frozen=True, extra="forbid")

    home: Path = Field(default=_CHECKOUT / ".osmf", description="folder of everything that OSMF writes")
    lake: str = Field(
        default="", description="root of the Delta tables: a folder or a URI that Spark can write; default HOME/lake"
    )
    mlflow_uri: str = Field(
        default="", description="MLflow tracking and registry store; default sqlite:///HOME/mlflow.db"
    )
    source: Literal["files", "table", "open_bandit"] = Field(default="files", description="where logs come from")
    source_path: Path = Field(
        default=Path(),
        description="folder that holds mapping.toml (`files`: the drop folder); default HOME/market/drop",
    )
    truth_path: Path = Field(
        default=Path(),
        description="a simulated market's truth, for evaluation only; default: `truth` beside the drop folder",
    )
    first_date: date = Field(default=date(2026, 1, 1), description="first day of logs")
    end_date: date | None = Field(default=None, description="the day after the last day of logs; none: logs go on")

    spark_master: str = Field(
        default="local[*]",
        description="Spark master: local[*], or a cluster's, such as spark://host:7077 (docs/cluster.md)",
    )
    spark_conf: dict[str, str] = Field(default_factory=dict, description="more Spark configuration, a JSON object")
    driver_memory: str = Field(
        default="4g", description="heap of the Spark driver, which on local[*] does all the work"
    )
    spark_python: str = Field(
        default="",
        description="Python of a cluster's workers, with the libraries of docs/cluster.md; default: the Python of this "
        "version on their path, and libraries ship with the job",
    )
    executor_wait_seconds: int = Field(
        default=120, ge=1, description="how long a cluster may take to give the first executor"
    )

    user_key: str = Field(
        default=DEFAULT_USER_KEY, description="key of the hash that replaces user ids; a secret that never changes"
    )
    attribution_window_hours: int = Field(default=24, ge=1, description="a click counts this long after its impression")
    click_lookback_days: int = Field(
        default=3, ge=0, description="days after an impression's day in which its clicks may still be delivered"
    )
    max_impressions_per_user_day: int = Field(default=1000, ge=1, description="users above this are taken for bots")
    grouping: Literal["adaptive", "one_group", "attribute_cross", "kmeans"] = Field(
        default="adaptive", description="how groups are formed; the others are baselines"
    )
    evidence_window_days: int = Field(default=28, ge=1, description="days of logs behind groups and pairs")
    min_group_users: int = Field(
        default=50, ge=1, description="privacy floor k: a group has at least this many distinct users"
    )
    min_group_clicks: int = Field(default=200, ge=1, description="a group has at least this many clicks")
    min_pair_probability: float = Field(
        default=0.9, gt=0.5, lt=1, description="a pair is kept from this probability on"
    )
    max_quarantined_share: float = Field(
        default=0.05, gt=0, le=1, description="a day is refused above this share of bad rows"
    )
    min_volume_ratio: float = Field(
        default=0.2, ge=0, le=1, description="a day is refused below this share of the days before it; 0: never"
    )
    segmentation_model: str = Field(
        default="", description="transformers segmentation checkpoint that finds the product where no mask is supplied"
    )
    segmentation_labels: list[int] = Field(
        default_factory=list, description="labels of that model that are product; none: every label but 0"
    )

    refresh_cron: str = Field(default="0 3 * * *", description="when the daily refresh runs, UTC")
    training_cron: str = Field(
        default="0 5 * * 0", description="when models are trained on what pairs there are, UTC, if switched on"
    )
    alert_url: str = Field(
        default="", description="gets a JSON POST for every run that fails; none: HOME/alerts.jsonl only"
    )
    vacuum_hours: int = Field(
        default=168, ge=168, description="the maintenance job keeps old versions readable this long"
    )

    recipe: str = Field(default="demo", description="training recipe")
    num_processes: int = Field(default=2, ge=1, description="training processes on each machine")
    rendezvous: str = Field(
        default="",
        description="host:port where machines that train together meet: one of them, and a port that is free there",
    )
    hostfile: Path = Field(
        default=Path(),
        description="DeepSpeed hostfile, a line `name slots=4` for each host: training is started there by ssh",
    )
    num_nodes: int = Field(
        default=1, ge=1, validate_default=True, description="machines that train together, meeting at OSMF_RENDEZVOUS"
    )
    launch_command: str = Field(
        default="",
        description="starts training elsewhere, such as `srun --nodes 2 {command}`; default: it runs on this machine",
    )
    cancel_command: str = Field(
        default="", description="ends what OSMF_LAUNCH_COMMAND started, such as `scancel --name {job}`"
    )
    launch_python: str = Field(
        default="",
        description="Python of the machines that OSMF_LAUNCH_COMMAND or OSMF_HOSTFILE reach; default: as here",
    )
    heartbeat_warning_seconds: int = Field(
        default=600, ge=1, description="training that gives no sign of life for so long is told of in its log"
    )
    heartbeat_limit_seconds: int = Field(
        default=3600, ge=1, description="training that gives no sign of life for so long is cancelled"
    )
    record_wait_seconds: int = Field(
        default=120, ge=0, description="how long a record may take to appear here after training elsewhere has ended"
    )
    model_name: str = Field(default="osmf-group-ad", description="name in the model registry")
    min_picture_quality: float = Field(
        default=0.8, ge=0, le=1, description="a model below this mean picture quality gets no alias"
    )

    max_scene_distance: float = Field(
        default=2.5,
        gt=0,
        description="a drawn picture is not shown above this distance from logged ones (docs/serving.md), nor is a "
        "pretrained model published whose sample grid has a larger mean of it",
    )
    max_clipped_excess: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="nor with a share of blown-out colour values above theirs by more than this",
    )

    @field_validator("spark_conf")
    @classmethod
    def _check_spark_conf(cls, conf: dict[str, str]) -> dict[str, str]:
        for name, value in _FIXED_SPARK_CONF.items():
            if conf.get(name, value).lower() != value.lower():
                raise ValueError(f"{name} must stay {value}: remove it")
        return conf

    @field_validator("spark_master")
    @classmethod
    def _check_spark_master(cls, master: str, info: ValidationInfo) -> str:
        if not master.startswith("local"):
            _check_is_absolute(info)
            lake = info.data.get("lake", "")
            if lake and not (lake.startswith("/") or urlsplit(lake).scheme):
                raise ValueError(f"workers need an absolute OSMF_LAKE, and that is {lake}: give its whole path")
        return master

    @field_validator("segmentation_model")
    @classmethod
    def _check_segmentation_model(cls, model: str, info: ValidationInfo) -> str:
        is_local = info.data.get("spark_master", "local").startswith("local")
        if model and not is_local and not info.data.get("spark_python", model):
            raise ValueError(
                "on a cluster needs OSMF_SPARK_PYTHON, a Python of the workers with torch and transformers"
            )
        return model

    @field_validator("click_lookback_days")
    @classmethod
    def _check_lookback(cls, days: int, info: ValidationInfo) -> int:
        hours = info.data.get("attribution_window_hours", 0)
        if days * 24 < hours:
            raise ValueError(f"a window of {hours} hours needs at least {-(-hours // 24)} days of look-back")
        return days

    @field_validator("end_date")
    @classmethod
    def _check_end_date(cls, end: date | None, info: ValidationInfo) -> date | None:
        if end is not None and "first_date" in info.data and end <= info.data["first_date"]:
            raise ValueError(f"must be after OSMF_FIRST_DATE={info.data['first_date']}")
        return end

    @field_validator("rendezvous")
    @classmethod
    def _check_rendezvous(cls, where: str) -> str:
        host, _, port = where.rpartition(":")
        if where and not (host and port.isdigit()):
            raise ValueError("must be host:port, such as trainer-1:29500")
        return where

    @field_validator("hostfile")
    @classmethod
    def _check_hostfile(cls, path: Path, info: ValidationInfo) -> Path:
        if path != Path():
            read_hostfile(path)
            _check_is_absolute(info)
        return path

    @field_validator("num_nodes")
    @classmethod
    def _check_num_nodes(cls, num_nodes: int, info: ValidationInfo) -> int:
        has_hostfile = info.data.get("hostfile", Path()) != Path()
        if has_hostfile and num_nodes > 1:
            raise ValueError("the hostfile says how many machines there are: unset this one or OSMF_HOSTFILE")
        if not has_hostfile and (num_nodes > 1) != bool(info.data.get("rendezvous", num_nodes > 1)):
            raise ValueError("several machines need both: set OSMF_NUM_NODES and OSMF_RENDEZVOUS=host:port, or neither")
        if num_nodes > 1:
            _check_is_absolute(info)
        return num_nodes

    @field_validator("launch_command")
    @classmethod
    def _check_launch_command(cls, text: str, info: ValidationInfo) -> str:
        if text:
            parse_launch_command(text)
            _check_is_absolute(info)
            if info.data.get("hostfile", Path()) != Path():
                raise ValueError("training is started by one way: unset this one or OSMF_HOSTFILE")
        return text

    @field_validator("cancel_command")
    @classmethod
    def _check_cancel_command(cls, text: str, info: ValidationInfo) -> str:
        if text:
            parse_cancel_command(text)
            if not info.data.get("launch_command", text):
                raise ValueError("ends what OSMF_LAUNCH_COMMAND starts, which is not set: set it, or unset this one")
        return text

    @field_validator("heartbeat_limit_seconds")
    @classmethod
    def _check_heartbeat_limit(cls, seconds: int, info: ValidationInfo) -> int:
        if seconds < info.data.get("heartbeat_warning_seconds", seconds):
            raise ValueError("must not be below OSMF_HEARTBEAT_WARNING_SECONDS")
        return seconds

    @property
    def lake_root(self) -> str:
        """Root of the Delta tables."""
        return self.lake or str(self.home / "lake")

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry store."""
        return self.mlflow_uri or f"sqlite:///{self.home.absolute() / 'mlflow.db'}"

    @property
    def drop_folder(self) -> Path:
        """The drop folder that `files` reads."""
        return self.home / "market" / "drop" if self.source_path == Path() else self.source_path

    @property
    def truth_folder(self) -> Path:
        """The simulated market's truth."""
        return self.drop_folder.parent / "truth" if self.truth_path == Path() else self.truth_path
