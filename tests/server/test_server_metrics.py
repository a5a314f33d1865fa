"""`/metrics` of a real server, read by Prometheus's own parser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_kit import STACK, Server, serving

from stackconf import __version__

if TYPE_CHECKING:
    import httpx

ELSEWHERE = {"inference": [{"provider_id": "one", "config": {"url": "http://elsewhere"}}]}
CANARY = "canary-4711-0123456789"
REQUESTS = "stackconf_http_requests_total"
APPLIES = "stackconf_apply_duration_seconds_count"


class Scrape:
    """One reading: samples by name and labels."""

    def __init__(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        self.text = answer.text
        self.families = list(text_string_to_metric_families(answer.text))
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of a sample."""
        return self.samples.get((name, frozenset(labels.items())))

    def labels(self, label: str) -> set[str]:
        """Every value of a label."""
        return {value for _, labels in self.samples for name, value in labels if name == label}


def scraped(server: Server, **headers: str) -> Scrape:
    with server.http(headers=headers) as http:
        return Scrape(http.get("/metrics"))


@pytest.fixture
def server(tmp_path: Path):
    with serving(tmp_path) as server:
        server.until("applied: ")
        yield server


def test_the_stack_is_told(server: Server) -> None:
    before = scraped(server)
    assert before("stackconf_providers", standing="applied") == 2
    assert before("stackconf_providers", standing="to apply") == 0
    assert before("stackconf_head_revision") == before("stackconf_applied_revision") == 0
    assert before("stackconf_ready") == before("stackconf_settled") == before("stackconf_stack_readable") == 1
    assert before("stackconf_providers_pending") == before("stackconf_reload_problem") == 0
    assert before("stackconf_applying") == 0
    assert __version__ in before.labels("version")
    assert before(APPLIES, outcome="applied") == 1
    with server.http() as http:
        http.post("/v1/configurations/register", json={"config": ELSEWHERE})
    after = scraped(server)
    assert (after("stackconf_head_revision"), after("stackconf_applied_revision")) == (1, 0)
    assert after("stackconf_providers", standing="to apply") == 1
    assert (after("stackconf_ready"), after("stackconf_settled")) == (1, 0)


def test_applies_are_told_by_how_they_went(server: Server) -> None:
    with server.http() as http:
        for url in ("http://elsewhere", "http://fail", "http://down"):
            config = {"inference": [{"provider_id": "one", "config": {"url": url}}]}
            http.post("/v1/configurations/register", json={"config": config, "apply": True})
        http.post("/v1/apply", json={"plan": http.get("/v1/plan").json()})
    found = scraped(server)
    assert found(APPLIES, outcome="applied") == 2
    assert found(APPLIES, outcome="failed") == 1
    assert found(APPLIES, outcome="pending") >= 1
    assert found("stackconf_providers_pending") == 1
    assert found("stackconf_apply_duration_seconds_bucket", outcome="applied", le="+Inf") == 2
    assert 0 < found("stackconf_apply_duration_seconds_sum", outcome="applied") < 60


def test_requests_are_told_by_route_and_not_by_path(server: Server) -> None:
    with server.http() as http:
        etag = http.get("/v1/inspect/configurations").headers["etag"]
        http.get("/v1/inspect/configurations", headers={"If-None-Match": etag})
        http.get("/v1/inspect/configurations", headers={"If-None-Match": '"another"'})
        http.get("/v1/explain/inference/one")
        http.get("/v1/explain/inference/nobody")
        http.get("/v1/providers")
        http.put("/v1/plan")
        http.request("MKCOL", "/v1/plan")
        for number in range(30):
            assert http.get(f"/{CANARY}/{number}").status_code == 404
            assert http.get(f"/v1/configurations/{CANARY}-{number}").status_code == 404
            http.get("/v1/plan", headers={"Host": f"{CANARY}-{number}.example"})
    found = scraped(server)
    inspect = "/v1/inspect/configurations"
    assert found(REQUESTS, method="GET", route=inspect, status="2xx") == 2
    assert found(REQUESTS, method="GET", route=inspect, status="3xx") == 1
    assert found(REQUESTS, method="GET", route="/v1/explain/{provider}", status="2xx") == 1
    assert found(REQUESTS, method="GET", route="/v1/explain/{provider}", status="4xx") == 1
    assert found(REQUESTS, method="GET", route="/v1/providers", status="2xx") == 1
    assert found(REQUESTS, method="PUT", route="/v1/plan", status="4xx") == 1
    assert found(REQUESTS, method="(other)", route="/v1/plan", status="4xx") == 1
    assert found(REQUESTS, method="GET", route="(none)", status="4xx") == 30
    assert found(REQUESTS, method="GET", route="/v1/configurations/{name}", status="4xx") == 30
    assert found(REQUESTS, method="GET", route="/v1/plan", status="4xx") == 30
    duration = "stackconf_http_request_duration_seconds"
    assert found(f"{duration}_count", method="GET", route=inspect) == 3
    buckets = [
        value
        for (name, labels), value in found.samples.items()
        if name == f"{duration}_bucket" and ("route", inspect) in labels
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 3
    assert found("stackconf_http_requests_in_flight") == 1
    assert CANARY not in found.text


def test_a_file_that_was_not_taken_is_told(server: Server) -> None:
    import signal

    (server.folder / "stack.yaml").write_text("providers: [", encoding="utf-8")
    server.send(signal.SIGHUP)
    server.until("was not taken")
    assert scraped(server)("stackconf_reload_problem") == 1


def test_what_cannot_be_applied_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, stack=STACK.replace("url: http://one", "threads: 1000")) as server:
        server.until("error ")
        found = scraped(server)
    assert found("stackconf_ready") == 0
    assert found("stackconf_providers", standing="invalid") == 1
    assert found("stackconf_applied_revision") is None
    assert found(APPLIES, outcome="refused") == 1


def test_it_needs_a_token_as_every_read_and_tells_no_secret(tmp_path: Path) -> None:
    environ = {"STACKCONF_SERVE_TOKEN": CANARY, "ACME_TOKEN": f"{CANARY}-acme"}
    with serving(tmp_path, environ=environ) as server:
        server.until("applied: ")
        with server.http() as http:
            assert http.get("/metrics").status_code == 401
        found = scraped(server, Authorization=f"Bearer {CANARY}")
    assert found(REQUESTS, method="GET", route="/metrics", status="4xx") == 1
    assert CANARY not in found.text
