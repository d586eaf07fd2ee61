"""What Dagster does by itself: the schedule, and the days that it catches up on.

Runs are real, of one small asset that stands for the chain; the source is a list of days and their deliveries.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    SCHEDULE_NAME_TAG,
)
from dagster._core.utils import make_new_run_id

from osmf_pipelines.partitions import daily_partitions
from osmf_pipelines.schedules import build_daily_refresh, build_weekly_training
from osmf_pipelines.sensors import MAX_RUNS_WAITING, build_missing_days_sensor
from osmf_pipelines.settings import Settings

# Runs over a range of days.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
FIRST_DAY = date(2025, 3, 1)
PAIRS = dg.AssetKey("preference_pairs")
_ORIGIN = RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin(host="localhost", port=1), "__repository__")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def _day(number: int) -> date:
    return FIRST_DAY + timedelta(days=number)


@dataclass
class PlannedSource:
    """A source that is asked for nothing but its days."""

    deliveries: dict[date, str] = field(default_factory=dict)
    asked: list[date] = field(default_factory=list)

    def days(self) -> list[date]:
        return sorted(self.deliveries)

    def delivery_of(self, day: date) -> str:
        self.asked.append(day)
        return self.deliveries[day]


class Operations:
    """One lake's job over one asset that fails on days of choice, its schedule, its sensor, and a Dagster instance."""

    def __init__(self, settings: Settings, source: PlannedSource, instance: dg.DagsterInstance):
        self.source, self.instance = source, instance
        self.bad_days: dict[str, Exception] = {}

        @dg.asset(partitions_def=daily_partitions(settings), backfill_policy=dg.BackfillPolicy.single_run())
        def preference_pairs(context: dg.AssetExecutionContext) -> None:
            for key in context.partition_keys:
                if key in self.bad_days:
                    raise self.bad_days[key]

        job = dg.define_asset_job("refresh_pairs", selection=[preference_pairs], tags={"osmf/lake": "shop"})
        self.schedule = build_daily_refresh(settings, job)
        self.missing_days = build_missing_days_sensor(settings, job, PAIRS)
        self.defs = dg.Definitions(
            assets=[preference_pairs],
            jobs=[job],
            schedules=[self.schedule],
            sensors=[self.missing_days],
            executor=dg.in_process_executor,
        )
        self.job = self.defs.resolve_job_def("refresh_pairs")

    def deliver(self, *days: date, delivery: str = "d1") -> None:
        self.source.deliveries.update(dict.fromkeys(days, delivery))

    def run(self, day: date | None = None, **tags: str) -> dg.ExecuteInProcessResult:
        key = day.isoformat() if day else None
        return self.job.execute_in_process(
            partition_key=key, tags=tags, instance=self.instance, raise_on_error=False, run_config=QUIET
        )

    def add_run(
        self,
        tags: dict[str, str],
        selection: frozenset[dg.AssetKey] | None = None,
        status: dg.DagsterRunStatus = dg.DagsterRunStatus.QUEUED,
    ) -> None:
        """Adds a run that is not executed here, as the pages and the daemon put it into the queue."""
        run = dg.DagsterRun(
            job_name="refresh_pairs",
            run_id=make_new_run_id(),
            status=status,
            tags={"osmf/lake": "shop", **tags},
            asset_selection=selection,
            remote_job_origin=_ORIGIN.get_job_origin("refresh_pairs"),
        )
        self.instance.add_run(run)

    def tick(self) -> list[dg.RunRequest] | str:
        """What the sensor asks for, or why it does not."""
        with dg.build_sensor_context(instance=self.instance) as context:
            told = self.missing_days(context)
        return told.skip_message if isinstance(told, dg.SkipReason) else list(told)

    def days_asked_for(self) -> list[date]:
        told = self.tick()
        return [] if isinstance(told, str) else [date.fromisoformat(request.partition_key or "") for request in told]

    def schedule_tick(self, at: datetime) -> dg.RunRequest | str:
        with dg.build_schedule_context(instance=self.instance, scheduled_execution_time=at) as context:
            told = self.schedule(context)
        return told.skip_message if isinstance(told, dg.SkipReason) else told


@pytest.fixture
def lake_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"first_date": FIRST_DAY})


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance on disk: a schedule's context opens it anew."""
    with dg.instance_for_test() as found:
        yield found


@pytest.fixture
def operations(
    lake_settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Operations]:
    source = PlannedSource()
    monkeypatch.setattr("osmf_pipelines.sources.open_source", lambda settings: source)
    yield Operations(lake_settings, source, instance)
    instance.wipe()


NIGHT = datetime(2025, 3, 3, 3, 0, tzinfo=UTC)
YESTERDAY = date(2025, 3, 2)


def test_training_is_asked_for_where_the_newest_pairs_have_no_model(
    lake_settings: Settings, instance: dg.DagsterInstance
) -> None:
    export, registered = dg.AssetKey("training_export"), dg.AssetKey("registered_model")
    job = dg.define_asset_job("train_and_evaluate", selection="*", tags={"osmf/lake": "shop"})
    schedule = build_weekly_training(lake_settings, job, export, registered)

    def tick() -> dg.RunRequest | str:
        with dg.build_schedule_context(instance=instance) as context:
            told = schedule(context)
        return told.skip_message if isinstance(told, dg.SkipReason) else told

    def materialise(key: dg.AssetKey, day: date) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day.isoformat()))

    try:
        assert tick() == "no day has a training export yet"
        materialise(export, _day(0))
        materialise(export, _day(1))
        materialise(registered, _day(0))
        asked = tick()
        assert isinstance(asked, dg.RunRequest)
        assert asked.partition_key == _day(1).isoformat()
        run = dg.DagsterRun("train_and_evaluate", make_new_run_id(), tags=job.run_tags or {})
        instance.add_run(run)
        assert tick() == f"models are being trained by run {run.run_id}"
        instance.delete_run(run.run_id)
        materialise(registered, _day(1))
        assert tick() == f"the newest day with pairs, {_day(1)}, has its model"
    finally:
        instance.wipe()


def test_schedule_asks_for_the_day_before_its_own_time(operations: Operations) -> None:
    operations.deliver(_day(0), YESTERDAY, date(2025, 3, 3))
    request = operations.schedule_tick(NIGHT)
    assert isinstance(request, dg.RunRequest)
    assert (request.partition_key, request.run_key) == ("2025-03-02", "2025-03-02")
    assert request.tags["osmf/delivery"] == "d1"


def test_schedule_waits_for_complete_logs_and_for_the_first_day(operations: Operations) -> None:
    assert operations.schedule_tick(NIGHT) == "the logs of 2025-03-02 are not complete"
    operations.deliver(date(2025, 2, 28))
    early = operations.schedule_tick(datetime(2025, 3, 1, 3, 0, tzinfo=UTC))
    assert early == "2025-02-28 is before OSMF_FIRST_DATE=2025-03-01"


@pytest.mark.parametrize("is_bad", [False, True], ids=["succeeded", "failed"])
def test_schedule_launches_a_day_once(operations: Operations, is_bad: bool) -> None:
    operations.deliver(YESTERDAY)
    if is_bad:
        operations.bad_days[YESTERDAY.isoformat()] = dg.Failure("refused")
    request = operations.schedule_tick(NIGHT)
    assert isinstance(request, dg.RunRequest)
    operations.run(YESTERDAY, **{**request.tags, SCHEDULE_NAME_TAG: "daily_refresh"})
    operations.deliver(YESTERDAY, delivery="d2")
    told = operations.schedule_tick(NIGHT + timedelta(hours=1))
    assert isinstance(told, str)
    assert told.startswith("2025-03-02 was launched before")
    assert told.endswith("FAILURE" if is_bad else "SUCCESS")


def test_schedule_leaves_a_day_alone_that_the_sensor_has_asked_for(operations: Operations) -> None:
    operations.deliver(YESTERDAY)
    operations.add_run({PARTITION_NAME_TAG: "2025-03-02", "osmf/delivery": "d1"})
    assert str(operations.schedule_tick(NIGHT)).startswith("2025-03-02 is being refreshed by run ")


def test_a_schedule_that_is_none_is_named(lake_settings: Settings) -> None:
    job = dg.define_asset_job("refresh_pairs", selection=dg.AssetSelection.assets("preference_pairs"))
    wrong = lake_settings.model_copy(update={"refresh_cron": "every night"})
    with pytest.raises(ValueError, match=r"OSMF_REFRESH_CRON='every night' .*'0 3 \* \* \*'"):
        build_daily_refresh(wrong, job)
    hourly = build_daily_refresh(lake_settings.model_copy(update={"refresh_cron": "15 * * * *"}), job)
    assert (hourly.cron_schedule, hourly.execution_timezone) == ("15 * * * *", "UTC")


def test_missing_days_are_asked_for_oldest_first(operations: Operations) -> None:
    operations.deliver(_day(4), _day(2), _day(3), _day(0), FIRST_DAY - timedelta(days=1))
    operations.deliver(datetime.now(UTC).date() + timedelta(days=1))
    operations.run(_day(3))
    told = operations.tick()
    assert [request.run_key for request in told] == ["2025-03-01/d1", "2025-03-03/d1", "2025-03-05/d1"]
    assert {request.tags["osmf/delivery"] for request in told} == {"d1"}


def test_nothing_missing_costs_no_look_at_any_delivery(operations: Operations) -> None:
    operations.deliver(_day(0), _day(1))
    for number in range(2):
        operations.run(_day(number))
    assert operations.tick() == "none of 2 complete days is missing"
    assert operations.source.asked == []


def test_a_year_does_not_fill_the_queue(operations: Operations) -> None:
    operations.deliver(*[_day(number) for number in range(365)])
    first = operations.days_asked_for()
    assert first == [_day(number) for number in range(MAX_RUNS_WAITING)]
    for day in first:
        operations.add_run({PARTITION_NAME_TAG: day.isoformat(), "osmf/delivery": "d1"})
    assert operations.tick() == "missing days: 10 under way; 355 waiting for the runs before them"
    for run in operations.instance.get_runs(limit=3):
        operations.instance.report_run_canceled(run)
    # The three that were cancelled are not asked for again, the three after the first ten are.
    assert operations.days_asked_for() == [_day(10), _day(11), _day(12)]


@pytest.mark.parametrize(
    ("tags", "selection"),
    [
        ({PARTITION_NAME_TAG: "2025-03-02"}, None),
        ({PARTITION_NAME_TAG: "2025-03-02", SCHEDULE_NAME_TAG: "daily_refresh"}, None),
        ({ASSET_PARTITION_RANGE_START_TAG: "2025-03-01", ASSET_PARTITION_RANGE_END_TAG: "2025-03-02"}, None),
        ({PARTITION_NAME_TAG: "2025-03-02"}, frozenset([PAIRS])),
    ],
    ids=["by hand", "by the schedule", "range", "chosen asset"],
)
def test_days_under_way_are_left_alone(
    operations: Operations, tags: dict[str, str], selection: frozenset[dg.AssetKey] | None
) -> None:
    operations.deliver(_day(1), _day(2))
    operations.add_run(tags, selection)
    assert operations.days_asked_for() == [_day(2)]
    operations.source.deliveries.pop(_day(2))
    assert operations.tick() == "missing days: 1 under way"


@pytest.mark.parametrize(
    ("tags", "selection"),
    [({"osmf/lake": "other"}, None), ({}, frozenset([dg.AssetKey(["other", "preference_pairs"])]))],
    ids=["another lake's job", "another asset"],
)
def test_runs_of_others_do_not_hide_a_day(
    operations: Operations, tags: dict[str, str], selection: frozenset[dg.AssetKey] | None
) -> None:
    operations.deliver(_day(1))
    operations.add_run({PARTITION_NAME_TAG: "2025-03-02", **tags}, selection)
    assert operations.days_asked_for() == [_day(1)]


def test_a_failed_day_waits_for_its_next_delivery_and_stops_no_other(operations: Operations) -> None:
    operations.deliver(_day(0), _day(1))
    operations.bad_days[_day(0).isoformat()] = dg.Failure("refused")
    for request in operations.tick():
        operations.run(date.fromisoformat(request.partition_key), **request.tags)
    assert operations.tick() == (
        "missing days: 1 whose run for the present delivery ended without pairs (2025-03-01): mend and deliver them "
        "again, or launch them by hand"
    )
    operations.deliver(_day(2))
    assert operations.days_asked_for() == [_day(2)]

    operations.deliver(_day(0), delivery="d2")
    first, second = operations.tick()
    assert (first.run_key, second.run_key) == ("2025-03-01/d2", "2025-03-03/d1")


def test_ten_failed_days_do_not_use_up_a_tick(operations: Operations) -> None:
    operations.deliver(*[_day(number) for number in range(12)])
    for number in range(MAX_RUNS_WAITING):
        tags = {PARTITION_NAME_TAG: _day(number).isoformat(), "osmf/delivery": "d1"}
        operations.add_run(tags, status=dg.DagsterRunStatus.FAILURE)
    assert operations.days_asked_for() == [_day(10), _day(11)]


def test_catching_up_is_switched_on_by_a_person(operations: Operations) -> None:
    assert operations.missing_days.default_status == dg.DefaultSensorStatus.STOPPED
    assert operations.missing_days.minimum_interval_seconds >= 300
