"""deploy/monitoring: rules and dashboard use metrics that the monitor exports, and promtool accepts all of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pg_bronze.cli.monitor.metrics import Snapshot
from pg_bronze.lake.storage_size import StorageSize
from pg_bronze_tests.harness.monitoring import START, promtool, status, table, text_of

TOP = Path(__file__).parents[2]
FOLDER = TOP / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
# Of Prometheus itself, and of node_exporter.
FOREIGN = {"up", "node_textfile_mtime_seconds", "ALERTS"}
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$table": ".*"}


def everything() -> Snapshot:
    """A snapshot of which every metric has a value."""
    tables = [
        table("movie", row_count=5, late_rows=1, copied_at=START),
        table("sales.person", "stuck", error="no right", sweep_age_s=7.0),
        table("event", "loading", load_share=0.25),
    ]
    return Snapshot(
        30.0,
        status(*tables, blocked="by session 7", blocked_s=130.0),
        up=True,
        folders={"movie": "movie"},
        errors={"SourceUnavailable": 1},
        interval_s=10.0,
        connections=3,
        storage=StorageSize({"movie": 10}, {"movie": 1}),
        last_tick=START,
        s3_requests={"put": 4},
    )


def exported() -> set[str]:
    return set(re.findall(r"(?m)^(pg_bronze_\w+)", text_of(everything(), START)))


def panels() -> list[dict[str, Any]]:
    return list(DASHBOARD["panels"])


def queries() -> list[str]:
    """Every query of the dashboard, with the variables replaced as Grafana does."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    found += [item["expr"] for item in DASHBOARD["annotations"]["list"]]
    return [re.sub(r"\$\w+", lambda name: VARIABLES[name.group()], query) for query in found]


def named(query: str) -> set[str]:
    """The metrics in a query: the names before a selector or an operator that are no function, label or keyword."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\b(on|by|ignoring|group_left)\s*\([^)]*\)|\[[^\]]*\]', " ", query)
    words = set(re.findall(r"\b([a-zA-Z_]\w*)\b(?!\s*\()", bare))
    return words - {"or", "unless", "and", "by"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in rules()), *queries()])
def test_each_metric_of_the_rules_and_of_the_dashboard_is_exported(query: str):
    """A rule with a misspelled metric never fires, and a panel of it is empty."""
    assert named(query) - FOREIGN <= exported()


def test_the_readme_has_one_row_for_each_exported_metric():
    rows = re.findall(r"(?m)^\| `(pg_bronze_\w+)` \|", (FOLDER / "README.md").read_text(encoding="utf-8"))

    assert sorted(rows) == sorted(exported())


def test_the_readme_has_one_row_for_each_alert():
    rows = re.findall(r"(?m)^\| `(PgBronze\w+)` \|", (FOLDER / "README.md").read_text(encoding="utf-8"))

    assert rows == [rule["alert"] for rule in rules()]


def test_each_alert_has_a_severity_and_a_remedy_and_is_shown_to_fire():
    shown = (FOLDER / "alerts_test.yml").read_text(encoding="utf-8")
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        assert f'alertname="{rule["alert"]}", alertstate="firing"' in shown


def test_the_panels_do_not_overlap_and_have_titles_and_descriptions():
    cells: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & own
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        assert panel["description"].endswith(".")
        cells |= own
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_every_query_uses_the_data_source_that_is_selected():
    """An exported dashboard often names the one of its author, and is empty elsewhere."""
    sources = [panel["datasource"] for panel in panels()]
    sources += [target["datasource"] for panel in panels() for target in panel["targets"]]

    assert {json.dumps(source) for source in sources} == {'{"type": "prometheus", "uid": "${datasource}"}'}


# promtool


def test_promtool_accepts_the_rules_and_their_tests_pass():
    assert f"{len(rules())} rules found" in promtool("check", "rules", "alerts.yml", folder=FOLDER)
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml", folder=FOLDER)


def test_promtool_accepts_every_query_of_the_dashboard(tmp_path: Path):
    """A query with a syntax error is a panel with a red triangle."""
    recorded = [{"record": f"pg_bronze:panel_{number}", "expr": query} for number, query in enumerate(queries())]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))

    assert f"{len(recorded)} rules found" in promtool("check", "rules", "queries.yml", folder=tmp_path)


def test_promtool_accepts_the_example_configuration():
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", folder=FOLDER)


def test_promtool_finds_nothing_to_criticize_in_the_metrics():
    """It checks names, units, types and help texts."""
    assert promtool("check", "metrics", text=text_of(everything(), START)) == ""
