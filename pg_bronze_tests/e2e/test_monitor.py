"""`pg-bronze monitor` as a process: scrapes, the file for node_exporter, log lines, and Ctrl-C."""

import json
import urllib.request
from pathlib import Path

from pg_bronze_tests.e2e.conftest import Shop, end, free_port, wait_until
from pg_bronze_tests.harness.monitoring import promtool


def scrape(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def test_the_monitor_answers_scrapes_until_ctrl_c(shop: Shop, tmp_path: Path):
    shop.database.execute("create table movie (id int primary key); insert into movie values (1), (2)")
    assert shop.run("tick").returncode == 0
    shop.environment["PG_BRONZE_LOG"] = "json"
    port, file, log = free_port(), tmp_path / "pg_bronze.prom", tmp_path / "log"

    monitor = shop.start("monitor", "--port", str(port), "--every", "1s", "--textfile", str(file), output=log)
    wait_until(lambda: "pg_bronze_up 1.0" in scrape(port) and file.exists(), "an evaluation", 30)
    scraped, written = scrape(port), file.read_text()

    assert end(monitor) == 0
    assert 'pg_bronze_table_state{state="up_to_date",table="movie"} 1.0' in scraped
    assert 'pg_bronze_table_state{state="up_to_date",table="movie"} 1.0' in written
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["level"], line["message"].partition(" are checked")[0]) for line in lines] == [
        ("info", f"The tables of {shop.database.name}@127.0.0.1:{shop.database.server.port}")
    ]
    assert promtool("check", "metrics", text=scraped) == ""


def test_a_port_that_is_in_use_is_a_sentence(shop: Shop):
    port = shop.database.server.port

    done = shop.run("monitor", "--port", str(port))

    assert done.returncode == 1
    assert f"The metrics cannot be served at 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
