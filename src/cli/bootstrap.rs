//! `campaignd bootstrap`: the SQL an administrator runs once.

use super::exit::Failure;
use super::load;
use super::show::{Format, say, say_json};
use crate::daemon::settings::Secrets;
use crate::history;
use crate::id::ConnectorName;
use crate::warehouse;
use std::path::Path;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The connector.
    name: String,
    /// Also run the part that the connector's own login may run: the tables.
    #[arg(long)]
    apply: bool,
}
