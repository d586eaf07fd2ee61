"""A run that fails is told: once, in the file and at the address, in its own words and without anybody's data."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from osmf_pipelines.schedules import build_daily_refresh
from osmf_pipelines.sensors import build_failure_sensor
from osmf_pipelines.settings import Settings

# Runs over a range of days.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
DAYS = dg.DailyPartitionsDefinition("2025-03-01")
REFUSED = "bronze_impressions of 2025-03-02 is not published: quarantine_is_bearable. Mend the data, then run again."
Fail = Callable[[], None]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def posted() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Address of a server on this machine, and what was posted to it."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()
        thread.join()


def _refuse() -> None:
    raise dg.Failure(REFUSED, allow_retries=False)


def _definitions(settings: Settings, fail: Fail = _refuse) -> dg.Definitions:
    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def bronze_impressions(context: dg.AssetExecutionContext) -> None:
        fail()

    job = dg.define_asset_job("ingest_days", selection=[bronze_impressions])
    return dg.Definitions(
        assets=[bronze_impressions],
        jobs=[job],
        sensors=[build_failure_sensor(settings)],
        executor=dg.in_process_executor,
    )


def _run(defs: dg.Definitions, instance: dg.DagsterInstance, **days: Any) -> dg.ExecuteInProcessResult:
    job = defs.resolve_job_def("ingest_days")
    return job.execute_in_process(
        instance=instance, raise_on_error=False, run_config=QUIET, **(days or {"partition_key": "2025-03-02"})
    )


def _tell(defs: dg.Definitions, instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> None:
    failed = next(event for event in result.all_events if event.is_job_failure)
    with dg.build_run_status_sensor_context(
        sensor_name="tell_failures", dagster_event=failed, dagster_instance=instance, dagster_run=result.dagster_run
    ) as context:
        defs.resolve_sensor_def("tell_failures")(context.for_run_failure())


def _lines(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (settings.home / "alerts.jsonl").read_text().splitlines()]


def test_a_failed_run_is_told_once_by_dagsters_own_evaluation(settings: Settings, instance: dg.DagsterInstance) -> None:
    defs = _definitions(settings)
    sensor = defs.resolve_sensor_def("tell_failures")

    def tick(cursor: str | None) -> str | None:
        with dg.build_sensor_context(instance=instance, definitions=defs, cursor=cursor) as context:
            return sensor.evaluate_tick(context).cursor

    cursor = tick(None)
    result = _run(defs, instance)
    cursor = tick(cursor)
    tick(cursor)

    (line,) = _lines(settings)
    ended_at = instance.get_run_record_by_id(result.run_id).end_time
    assert datetime.fromisoformat(line.pop("time")).timestamp() == pytest.approx(ended_at, abs=1e-3)
    assert line == {
        "job": "ingest_days",
        "partition": "2025-03-02",
        "run_id": result.run_id,
        "failed_step": "bronze_impressions",
        "message": REFUSED,
    }


def test_a_range_is_told_by_its_ends(settings: Settings, instance: dg.DagsterInstance) -> None:
    defs = _definitions(settings)
    tags = {ASSET_PARTITION_RANGE_START_TAG: "2025-03-02", ASSET_PARTITION_RANGE_END_TAG: "2025-03-05"}
    _tell(defs, instance, _run(defs, instance, tags=tags))
    assert _lines(settings)[0]["partition"] == "2025-03-02...2025-03-05"


def test_the_address_gets_what_the_file_gets(
    settings: Settings, instance: dg.DagsterInstance, posted: tuple[str, list[dict[str, Any]]]
) -> None:
    address, bodies = posted
    told = settings.model_copy(update={"alert_url": address})
    defs = _definitions(told)
    _tell(defs, instance, _run(defs, instance))
    assert bodies == _lines(told)


@pytest.mark.parametrize("kind", ["closed port", "server error", "no address at all"])
def test_an_address_that_does_not_answer_is_logged_and_loses_nothing(
    settings: Settings,
    instance: dg.DagsterInstance,
    posted: tuple[str, list[dict[str, Any]]],
    kind: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}/secret-token"
    addresses = {"closed port": closed, "server error": f"{posted[0]}/broken", "no address at all": "secret-token"}
    told = settings.model_copy(update={"alert_url": addresses[kind]})
    defs = _definitions(told)
    _tell(defs, instance, _run(defs, instance))
    assert len(_lines(told)) == 1
    log = capfd.readouterr().err
    assert "OSMF_ALERT_URL did not take the alert of run" in log
    assert "secret-token" not in log


def _quote_a_user() -> None:
    int("user-17")


def _break_a_rule_of_ours() -> None:
    build_daily_refresh(Settings(refresh_cron="every night"), dg.define_asset_job("refresh_pairs"))


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (_quote_a_user, "ValueError: see the run"),
        (_break_a_rule_of_ours, "ValueError: OSMF_REFRESH_CRON='every night' is no cron expression"),
        (lambda: _raise(dg.Failure("x" * 900)), "x" * 500),
    ],
    ids=["a library's", "this project's", "long"],
)
def test_only_this_projects_own_words_are_repeated(
    settings: Settings, instance: dg.DagsterInstance, fail: Fail, message: str
) -> None:
    defs = _definitions(settings, fail)
    _tell(defs, instance, _run(defs, instance))
    (line,) = _lines(settings)
    assert line["message"].startswith(message)
    assert len(line["message"]) <= 500
    assert "user-17" not in json.dumps(line)


def _raise(error: Exception) -> None:
    raise error


def test_a_run_that_ended_outside_its_steps_is_told(settings: Settings, instance: dg.DagsterInstance) -> None:
    defs = _definitions(settings)
    job = defs.resolve_job_def("ingest_days")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    event = instance.report_run_failed(run, "Exceeded maximum runtime of 21600 seconds.")
    with dg.build_run_status_sensor_context(
        sensor_name="tell_failures", dagster_event=event, dagster_instance=instance, dagster_run=run
    ) as context:
        defs.resolve_sensor_def("tell_failures")(context.for_run_failure())
    (line,) = _lines(settings)
    assert (line["failed_step"], line["partition"]) == (None, None)
    assert line["message"] == "Exceeded maximum runtime of 21600 seconds."


def test_alerts_are_on_from_the_start(settings: Settings) -> None:
    assert build_failure_sensor(settings).default_status == dg.DefaultSensorStatus.RUNNING
