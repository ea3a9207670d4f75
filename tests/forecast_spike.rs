//! What `forecast` says of a spike is what the daemon then makes of it: the
//! built program, and campaigns that are all due at the same second.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use serde_json::Value;
use std::time::{Duration, SystemTime};
use support::gate::Logged;
use support::night::{self, change_settings, ledger, text};
use support::site::{Site, TextRow};

/// A spike, and what holds it up.
struct Spike {
    campaigns: u32,
    max_runs: u32,
    max_queries: u32,
    /// How long each audience's statement takes, whatever the machine.
    asking: Duration,
}

impl Spike {
    async fn furnished(&self, name: &str) -> Site {
        let site = Site::behind_gate(name).await;
        let seconds = self.asking.as_secs_f64();
        site.sql(&format!(
            "create view people as select 'p-' || n as profile_id, n
             from generate_series(1, 5) n, (select pg_sleep({seconds})) s"
        ))
        .await;
        for number in 0..self.campaigns {
            let campaign = night::campaign("30 4 * * *", 7);
            let campaign = campaign.replace("name: hello", &format!("name: rush-{number}"));
            site.write(&format!("campaigns/rush-{number}.yaml"), &campaign);
        }
        let (runs, queries) = (self.max_runs, self.max_queries);
        let limits = format!("limits: {{ max_runs: {runs} }}\nlog:");
        change_settings(&site, "log:", &limits);
        let queries = format!("tls: disable, max_queries: {queries}");
        change_settings(&site, "tls: disable", &queries);
        let output = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
        assert!(output.status.success(), "{output:?}");
        site
    }

    /// How many statements one who is among the last 5 % waits for.
    fn fewest_rounds(&self) -> f64 {
        let at_a_time = self.max_runs.min(self.max_queries);
        f64::from(((self.campaigns * 95).div_ceil(100) - 1) / at_a_time)
    }

    /// Everything is due at one instant, and runs to its end.
    async fn live(&self, site: &Site) {
        let all = self.campaigns;
        let mut daemon = site.serve();
        site.wait_for_log("ready", 1).await;
        until_counted(site, &format!("from cursors having count(*) = {all}")).await;
        daemon.signal("TERM").await;
        assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
        let a_day = 86_400 * 1_000_000_u64;
        let back = format!("update cursors set seen_until = seen_until - {a_day}");
        ledger(site, &back).await;

        let mut daemon = site.serve();
        let finished = format!("from runs where state = 'finished' having count(*) = {all}");
        until_counted(site, &finished).await;
        daemon.signal("TERM").await;
        assert_eq!(daemon.ended().await, Some(0), "{}", site.log());
    }

    /// How long each run waited after its claim, the shortest first: for its
    /// place, or where all had one at once, for its audience's statement.
    async fn waited(&self, site: &Site) -> Vec<Duration> {
        let runs = ledger(site, "select run_id, claimed_at, started_at from runs").await;
        let log = site.gate().log();
        let asked_at = |run: &str| {
            let of_it = |ended: &&Logged| {
                ended.passing.step == "freeze" && ended.label.ends_with(&format!(" {run}"))
            };
            log.iter().find(of_it).unwrap().began
        };
        let waits = runs.iter().map(|run| {
            let ended = match self.max_runs < self.campaigns {
                true => instant(run, "started_at"),
                false => asked_at(text(run, "run_id")),
            };
            ended.duration_since(instant(run, "claimed_at")).unwrap()
        });
        let mut waits: Vec<Duration> = waits.collect();
        waits.sort_unstable();
        waits
    }

    /// The most runs that had a place at a time.
    async fn most_at_a_time(&self, site: &Site) -> u64 {
        let most = "select max((select count(*) from runs o where o.started_at <= r.started_at
            and r.started_at < o.finished_at)) as most from runs r";
        text(&ledger(site, most).await[0], "most").parse().unwrap()
    }
}

/// An instant as the ledger has it.
fn instant(run: &TextRow, column: &str) -> SystemTime {
    let micros = text(run, column).parse().unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

async fn until_counted(site: &Site, what: &str) {
    for _ in 0..1_200 {
        if !ledger(site, &format!("select count(*) {what}"))
            .await
            .is_empty()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not {what} after a minute: {}", site.log());
}

fn p95(waits: &[Duration]) -> f64 {
    let place = (waits.len() * 95).div_ceil(100) - 1;
    waits[place].as_secs_f64()
}

/// Lets the spike be, then asks what the next one will be like: as this one
/// was, whose durations are all that is known. A slower machine makes both
/// longer.
async fn the_next_is_forecast_as_this_one_was(name: &str, spike: Spike) {
    let site = spike.furnished(name).await;
    spike.live(&site).await;
    let waits = spike.waited(&site).await;
    assert_eq!(waits.len(), spike.campaigns as usize);
    let forecast = site.json(&["forecast", "--days", "1"]).await;
    let said = |key: &str| forecast["connectors"][0][key].as_f64().unwrap();
    let (found, forecast_p95) = (p95(&waits), said("waiting_p95_seconds"));
    eprintln!("{name}: p95 of waiting: forecast {forecast_p95:.3} s, found {found:.3} s");
    assert_eq!(forecast["runs"], spike.campaigns);
    assert_eq!(forecast["campaigns_without_past"], 0);
    assert_eq!(forecast["peak_running"], spike.max_runs);
    assert_eq!(
        forecast["peak_running"],
        Value::from(spike.most_at_a_time(&site).await)
    );
    // It is a tenth where the machine is quick: 3 to 9 % were measured. What a
    // run does beside its statement weighs more on one four times as slow, and
    // is only roughly in what is known of it.
    let off = (forecast_p95 - found).abs();
    assert!(off <= found / 3.0, "{forecast:#}\n{waits:?}");
    let least = spike.fewest_rounds() * spike.asking.as_secs_f64();
    assert!(
        forecast_p95 >= least && found >= least,
        "both wait {least} s at least"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spike_that_waits_for_places_goes_as_it_was_forecast() {
    let spike = Spike {
        campaigns: 60,
        max_runs: 15,
        max_queries: 20,
        asking: Duration::from_millis(1_000),
    };
    the_next_is_forecast_as_this_one_was("forecast_places", spike).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spike_that_waits_for_statements_goes_as_it_was_forecast() {
    let spike = Spike {
        campaigns: 24,
        max_runs: 24,
        max_queries: 4,
        asking: Duration::from_millis(700),
    };
    the_next_is_forecast_as_this_one_was("forecast_statements", spike).await;
}
