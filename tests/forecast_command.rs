//! What `campaignd forecast` says, before any run and after one.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;
use serde_json::Value;
use support::site::Site;

const CAMPAIGNS: usize = 3;

async fn site() -> Site {
    let site = Site::sqlite().await;
    site.sql("create table people as select 'p-1' as profile_id, 1 as n")
        .await;
    for number in 0..CAMPAIGNS {
        let campaign = format!(
            "name: hourly-{number}
connector: warehouse
schedule: {{ cron: '0 * * * *', timezone: UTC }}
audience: {{ key: profile_id, sql: 'select profile_id, n from people' }}
activation: {{ destination: sink, batch_size: 20 }}
"
        );
        site.write(&format!("campaigns/hourly-{number}.yaml"), &campaign);
    }
    site
}

async fn json(site: &Site) -> Value {
    let output = site
        .campaignd(&["forecast", "--days", "1", "--format", "json"])
        .await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn runs_of_which_nothing_is_known_take_a_minute_of_each() {
    let site = site().await;
    let forecast = json(&site).await;
    assert_eq!(forecast["campaigns"], CAMPAIGNS);
    assert_eq!(forecast["campaigns_without_past"], CAMPAIGNS);
    assert_eq!(forecast["runs"], 24 * CAMPAIGNS);
    assert_eq!(forecast["peak_running"], CAMPAIGNS);
    let output = site.campaignd(&["forecast", "--days", "1"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let said = "3 campaigns without a past run: taken to ask for a minute and to send for one";
    assert!(text.contains(said), "{text}");
}

#[tokio::test]
async fn a_campaign_without_a_past_is_taken_for_the_others_and_all_is_drawn() {
    let site = site().await;
    let bootstrap = site.campaignd(&["bootstrap", "warehouse", "--apply"]).await;
    assert!(bootstrap.status.success(), "{bootstrap:?}");
    let run = site.campaignd(&["run", "hourly-0"]).await;
    assert!(run.status.success(), "{run:?}");
    let forecast = json(&site).await;
    assert_eq!(forecast["campaigns_without_past"], CAMPAIGNS - 1);
    let people = forecast["destinations"][0]["members_per_hour"]
        .as_u64()
        .unwrap();
    assert!(
        people > 0 && people.is_multiple_of(CAMPAIGNS as u64),
        "{forecast}"
    );
    let plot = ["forecast", "--days", "1", "--plot", "load.svg"];
    let output = site.campaignd(&plot).await;
    assert!(output.status.success(), "{output:?}");
    let svg = std::fs::read_to_string(site.path().join("load.svg")).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
        "{svg}"
    );
}
