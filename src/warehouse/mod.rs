//! The warehouses behind the port: sqlx, and the SQL of `audience` and
//! `history` run in the order the design gives.

mod adapter;
mod admission;
mod adoption;
mod apart;
mod book;
mod bootstrap;
mod carry;
mod cells;
mod column_types;
mod connect;
mod consent;
mod erase;
mod errors;
mod fresh;
#[cfg(feature = "iam")]
mod iam;
mod keepalive;
mod label;
mod login;
mod login_errors;
mod options;
mod orphans;
mod pool;
mod preview;
mod reopen;
mod report;
mod report_ask;
mod report_campaigns;
mod report_keys;
mod report_privileges;
mod report_shares;
mod report_sql;
mod report_tls;
pub mod sample;
#[cfg(feature = "iam")]
mod sigv4;
mod staging;
mod tallies;
mod tidy;

pub use adapter::open;
pub use bootstrap::{Applied, Change, apply_bootstrap, apply_lift};
pub use erase::{Erased, Erasure, erase};
pub use fresh::newest_data;
pub use login::{IamLogin, IamTarget, Login};
pub use options::{ApartOptions, ConnectorOptions, Keepalive, ServerOptions, Tls};
pub use preview::{Blamed, Looked, Preview, Wanted, audience_count, look_at_campaign, preview};
pub use report::{Column, ConnectorReport, MAX_RELATIONS, OwnTable, Relation, report};
pub use report_campaigns::UsedBy;
pub use report_keys::{KeySample, MAX_SAMPLED};
pub use report_privileges::{Privileges, SchemaPrivileges};
pub use report_shares::{DataShares, MAX_SHARED, SharedRelation};
