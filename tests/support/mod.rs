//! What behaviour tests stand on.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a test ends at the first surprise, and each file uses another part"
)]

pub mod claims;
pub mod dream;
pub mod dream_ledger;
pub mod gate;
pub mod gate_acts;
pub mod gate_client;
pub mod gate_talk;
pub mod gate_wire;
pub mod gate_wlm;
pub mod ledger;
pub mod night;
pub mod oracle;
pub mod outage;
pub mod place;
pub mod postgres;
pub mod psql;
pub mod receiver;
pub mod records;
pub mod redshift_gate;
pub mod redshift_gate_answers;
pub mod redshift_gate_cells;
pub mod redshift_gate_history;
pub mod redshift_gate_lists;
pub mod redshift_gate_login;
pub mod redshift_gate_manners;
pub mod redshift_gate_rewrites;
pub mod redshift_gate_rules;
pub mod redshift_gate_words;
pub mod site;
pub mod tls;
