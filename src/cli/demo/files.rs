//! The files of the demo: the operator's, and the sample campaigns.

use super::Failure;
use anyhow::Context as _;
use std::path::{Path, PathBuf};

/// The operator's file.
pub(super) const CONFIG: &str = "campaignd.yaml";

/// The warehouse.
pub(super) const SANDBOX: &str = "sandbox.db";

/// Signs what the demo sends to itself; not a secret.
pub(super) const SIGNING_SECRET: &str = "whsec_Y2FtcGFpZ25kLWRlbW8tc2lnbmluZy1rZXktMzI=";

const CAMPAIGNS: [(&str, &str); 6] = [
    (
        "winback-lapsed-buyers.yaml",
        include_str!("../../../campaigns/winback-lapsed-buyers.yaml"),
    ),
    (
        "loyalty-gold-sms.yaml",
        include_str!("../../../campaigns/loyalty-gold-sms.yaml"),
    ),
    (
        "weekly-digest.yaml",
        include_str!("../../../campaigns/weekly-digest.yaml"),
    ),
    (
        "second-purchase-nudge.yaml",
        include_str!("../../../campaigns/second-purchase-nudge.yaml"),
    ),
    (
        "welcome-new-subscribers.yaml",
        include_str!("../../../campaigns/welcome-new-subscribers.yaml"),
    ),
    (
        "winter-sale-early-access.yaml",
        include_str!("../../../campaigns/winter-sale-early-access.yaml"),
    ),
];

/// Writes them into `dir`, and returns where the operator's file is.
pub(super) fn write(dir: &Path, receiver: &str) -> Result<PathBuf, Failure> {
    let campaigns = dir.join("campaigns");
    std::fs::create_dir_all(&campaigns)
        .with_context(|| format!("{} cannot be made", campaigns.display()))?;
    for (name, text) in CAMPAIGNS {
        put(&campaigns.join(name), text)?;
    }
    let config = dir.join(CONFIG);
    put(&config, &settings(receiver))?;
    Ok(config)
}

fn put(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    Ok(())
}

fn settings(receiver: &str) -> String {
    format!(
        "# Written by `campaignd demo`. The receiver lives as long as the demo.
campaigns: ./campaigns
state:
  url: sqlite://./state.db
connectors:
  sandbox:
    kind: sqlite
    path: ./{SANDBOX}
destinations:
  email-esp:
    url: {receiver}
    channel: email
    signing_secrets: [ \"{SIGNING_SECRET}\" ]
    dedupe_window: 24h
    not_processed: [503]
    retry: {{ initial: 100ms, max: 1s }}
    allow_http: true
    allow_private_network: true
  sms-gateway:
    url: {receiver}
    channel: sms
    signing_secrets: [ \"{SIGNING_SECRET}\" ]
    dedupe_window: 24h
    not_processed: [503]
    retry: {{ initial: 100ms, max: 1s }}
    allow_http: true
    allow_private_network: true
log: {{ format: text, level: error }}
"
    )
}
