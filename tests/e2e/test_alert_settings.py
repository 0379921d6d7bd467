"""HAN_ALERT_… on a real Grafana: what is made from them is removed with them; what the owner made stays."""

from __future__ import annotations

import email
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.alerting import House, MailBox, StartedGrafana, Webhook, Writing
from tests.e2e.test_alerts import OSLO
from tests.support.grafana_server import NO_GRAFANA, find_grafana
from tests.support.influx_server import Store
from tests.support.patience import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_grafana() is None, reason=NO_GRAFANA),
    pytest.mark.usefixtures("overload"),  # it starts now; test_alerts.py waits for it
]
CONFIG = "/api/alertmanager/grafana/config/api/v1/alerts"
SILENCES = "/api/alertmanager/grafana/api/v2/silences"
RULES = "/api/ruler/grafana/api/v1/rules"


@pytest.fixture
def grafana(tmp_path: Path, store: Store) -> Iterator[StartedGrafana]:
    home = find_grafana()
    assert home is not None
    made = StartedGrafana(home, tmp_path / "grafana", store)
    yield made
    made.stop()


def restart(grafana: StartedGrafana, **settings: str) -> None:
    """As after `docker compose up -d` with another .env."""
    grafana.stop()
    for name in [name for name in grafana.environment if name.startswith("HAN_ALERT_")]:
        del grafana.environment[name]
    grafana.environment |= settings
    grafana.start()


def config(grafana: StartedGrafana) -> dict[str, Any]:
    found: dict[str, Any] = grafana.api("GET", CONFIG, user="admin")
    return found


def own_things(grafana: StartedGrafana) -> None:
    """What an owner makes in Grafana: folder, dashboard, rule, silence, contact point, mute timing, policy."""
    folder = grafana.api("POST", "/api/folders", {"title": "Mine", "uid": "mine"}, user="admin")["title"]
    board = {"dashboard": {"uid": "my-board", "title": "My board", "panels": []}, "folderUid": "mine"}
    grafana.api("POST", "/api/dashboards/db", board, user="admin")
    (copied,) = [
        rule
        for group in grafana.api("GET", RULES, user="admin")["HAN"]
        for rule in group["rules"]
        if rule["grafana_alert"]["uid"] == "han-high-load"
    ]
    alert = {key: copied["grafana_alert"][key] for key in ("condition", "data", "no_data_state", "exec_err_state")}
    mine = {"for": "1m", "labels": {}, "annotations": {}, "grafana_alert": {**alert, "title": "My own high load"}}
    grafana.api("POST", f"{RULES}/{folder}", {"name": "mine", "interval": "1m", "rules": [mine]}, user="admin")
    matcher = {"name": "alertname", "value": "High load", "isRegex": False, "isEqual": True}
    silence = {
        "matchers": [matcher],
        "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "2099-01-01T00:00:00Z",
        "createdBy": "me",
        "comment": "mine",
    }
    grafana.api("POST", SILENCES, silence, user="admin")
    own_contact_and_policy(grafana)


def own_contact_and_policy(grafana: StartedGrafana) -> None:
    whole = config(grafana)
    manager = whole["alertmanager_config"]
    if not any(receiver["name"] == "my phone" for receiver in manager["receivers"]):
        one = {
            "name": "my phone",
            "type": "webhook",
            "settings": {"url": "http://localhost:9/mine"},
            "disableResolveMessage": False,
            "secureSettings": {},
        }
        manager["receivers"].append({"name": "my phone", "grafana_managed_receiver_configs": [one]})
        manager["mute_time_intervals"] = [
            {"name": "nights", "time_intervals": [{"times": [{"start_time": "22:00", "end_time": "23:00"}]}]}
        ]
    manager["route"] = {"receiver": "my phone", "group_by": ["alertname"], "routes": []}
    grafana.api(
        "POST", CONFIG, {"template_files": whole["template_files"], "alertmanager_config": manager}, user="admin"
    )


def assert_own_things(grafana: StartedGrafana) -> None:
    assert grafana.api("GET", "/api/dashboards/uid/my-board", user="admin")["meta"]["folderTitle"] == "Mine"
    (group,) = grafana.api("GET", RULES, user="admin")["Mine"]
    assert [rule["grafana_alert"]["title"] for rule in group["rules"]] == ["My own high load"]
    assert [
        one["comment"] for one in grafana.api("GET", SILENCES, user="admin") if one["status"]["state"] == "active"
    ] == ["mine"]
    manager = config(grafana)["alertmanager_config"]
    assert "my phone" in {receiver["name"] for receiver in manager["receivers"]}
    assert [one["name"] for one in manager["mute_time_intervals"]] == ["nights"]


def ours(grafana: StartedGrafana) -> dict[str, str]:
    return {uid: kind for uid, kind in grafana.contact_points().items() if uid.startswith("han-")}


def test_settings_are_added_and_removed_and_what_the_owner_made_stays(
    grafana: StartedGrafana, webhook: Webhook
) -> None:
    remembered = grafana.folder / "data/han-alerts-to"
    grafana.start()
    assert ours(grafana) == {}
    assert grafana.policy()["receiver"] == "grafana-default-email"
    own_things(grafana)

    restart(grafana, HAN_ALERT_WEBHOOK="", HAN_ALERT_EMAIL=" ", HAN_ALERT_SMTP_HOST="smtp.example.org")
    assert ours(grafana) == {}
    assert grafana.policy()["receiver"] == "my phone"
    assert_own_things(grafana)
    assert not remembered.exists()

    restart(grafana, HAN_ALERT_WEBHOOK=webhook.url)
    assert ours(grafana) == {"han-webhook": "webhook"}
    assert grafana.policy()["receiver"] == "HAN (set in .env)"
    assert set(config(grafana)["template_files"]) == {"han"}
    assert_own_things(grafana)

    slack = "https://hooks.slack.com/services/T0/B0/x"
    restart(grafana, HAN_ALERT_WEBHOOK=slack, HAN_ALERT_EMAIL="me@example.org", HAN_ALERT_SMTP_HOST="localhost:9")
    assert ours(grafana) == {"han-webhook": "slack", "han-email": "email"}
    assert_own_things(grafana)

    restart(grafana, HAN_ALERT_EMAIL="me@example.org", HAN_ALERT_SMTP_HOST="localhost:9")
    assert ours(grafana) == {"han-email": "email"}
    assert grafana.policy()["receiver"] == "HAN (set in .env)"
    until(lambda: remembered.read_text("utf-8").split() == ["han-email"])

    restart(grafana)
    assert ours(grafana) == {}
    assert grafana.policy()["receiver"] == "grafana-default-email"
    assert not config(grafana)["template_files"]
    assert_own_things(grafana)
    until(lambda: not remembered.exists())

    own_contact_and_policy(grafana)
    restart(grafana)
    assert grafana.policy()["receiver"] == "my phone"
    assert_own_things(grafana)
    assert webhook.url not in grafana.log.read_text("utf-8"), "an address is a secret"


def test_a_restart_while_a_rule_fires_sends_no_message_twice(
    grafana: StartedGrafana, store: Store, webhook: Webhook, mark: str
) -> None:
    grafana.speed_up()
    grafana.environment["HAN_ALERT_WEBHOOK"] = webhook.url
    over = House(f"RESTART{mark}", loads={"L1": 50.0, "L2": 120.0})
    writing = Writing(store, lambda now_ms: over.lines(now_ms, OSLO))
    try:
        grafana.start()
        rules = [rule for group in grafana.api("GET", RULES, user="admin")["HAN"] for rule in group["rules"]]
        assert {rule["grafana_alert"]["provenance"] for rule in rules} == {"file"}
        until(lambda: webhook.by_alert("firing", mark), 90, "the alert")
        restart(grafana, HAN_ALERT_WEBHOOK=webhook.url)
        until(lambda: grafana.alerts(mark) == {("Fuse overloaded", "RESTART L2")}, 40, "the alert after the restart")
        writing.change(lambda now_ms: House(f"RESTART{mark}").lines(now_ms, OSLO))
        until(lambda: webhook.by_alert("resolved", mark), 90, "its end")
        messages = [alert for message in webhook.messages for alert in message.alerts if mark in alert[2]]
        assert messages == [(status, "Fuse overloaded", f"RESTART{mark} L2") for status in ("firing", "resolved")]
    finally:
        writing.close()


def test_a_message_of_an_owners_rule_has_its_summary_and_its_meter(
    grafana: StartedGrafana, store: Store, webhook: Webhook, mark: str
) -> None:
    grafana.speed_up()
    grafana.environment["HAN_ALERT_WEBHOOK"] = webhook.url
    writing = Writing(store, lambda now_ms: House(f"OWN{mark}").lines(now_ms, OSLO))
    query = """SELECT mean("value") FROM "active_power" WHERE $timeFilter GROUP BY "meter_id" """
    source, range_ = {"type": "__expr__", "uid": "-100"}, {"from": 600, "to": 0}
    data = [
        {"refId": "A", "datasourceUid": "han-influxdb", "model": {"refId": "A", "rawQuery": True, "query": query}},
        {"refId": "B", "datasourceUid": "-100", "model": {"type": "reduce", "expression": "A", "reducer": "last"}},
        {"refId": "C", "datasourceUid": "-100", "model": {"type": "math", "expression": "$B > 2000"}},
    ]
    for one in data:
        one["relativeTimeRange"] = range_
        one["model"] |= {"refId": one["refId"]} | ({"datasource": source} if one["refId"] != "A" else {})  # type: ignore[operator]
    alert = {"title": "Mine", "condition": "C", "data": data, "no_data_state": "OK", "exec_err_state": "OK"}
    rule = {"for": "10s", "annotations": {"summary": "More than 2 kW."}, "labels": {}, "grafana_alert": alert}
    try:
        grafana.start()
        grafana.api("POST", "/api/folders", {"title": "Mine", "uid": "mine"}, user="admin")
        grafana.api("POST", f"{RULES}/Mine", {"name": "mine", "interval": "10s", "rules": [rule]}, user="admin")
        until(lambda: webhook.by_alert("firing", mark), 90, "the alert")
    finally:
        writing.close()
    message = webhook.by_alert("firing", mark)["Mine", "OWN"]
    assert message.title == "Mine"
    assert message.words.strip() == f"More than 2 kW. (meter OWN{mark})"


def test_an_alert_is_sent_by_mail(grafana: StartedGrafana, store: Store, mark: str) -> None:
    box = MailBox()
    grafana.speed_up()
    settings = {"EMAIL": "me@example.org, you@example.org", "SMTP_HOST": box.host, "SMTP_FROM": "han@example.org"}
    grafana.environment |= {f"HAN_ALERT_{name}": text for name, text in settings.items()}
    grafana.environment["HAN_GRAFANA_URL"] = "http://han.example.org:3000"
    over = House(f"MAIL{mark}", loads={"L1": 50.0, "L2": 120.0})
    writing = Writing(store, lambda now_ms: over.lines(now_ms, OSLO))
    try:
        grafana.start()
        until(lambda: [sent for sent in box.mails if mark in sent], 120, "the mail")
    finally:
        writing.close()
        box.close()
    (sent,) = [sent for sent in box.mails if mark in sent]
    mail = email.message_from_string(sent)
    content = mail.get_payload(decode=True)
    assert isinstance(content, bytes)
    words = content.decode()
    assert mail["To"].split() == ["me@example.org,", "you@example.org"]
    assert "han@example.org" in mail["From"]
    assert mail["Subject"] == "Fuse overloaded: L2"
    assert "L2 carries 48 A, 120 % of the main fuse (40 A)" in words
    assert "http://han.example.org:3000/d/han-now?orgId=1&amp;viewPanel=" in words
    assert f"&amp;var-meter=MAIL{mark}" in words
