//! How recent a campaign's data is.

use super::ConnectorOptions;
use super::adapter::SqlWarehouse;
use super::errors::error;
use super::pool::Session;
use crate::audience::FreshWhen;
use crate::audience::lint;
use crate::history::RunFacts;
use crate::run::{WarehouseError, WarehouseErrorClass};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

impl SqlWarehouse {
    /// The one value of `fresh_when.sql`, asked where nothing can be written.
    pub(super) async fn newest(
        &self,
        run: &RunFacts,
        fresh_when: &FreshWhen,
    ) -> Result<Option<Timestamp>, WarehouseError> {
        let mut session = self.pool.session().await?;
        let newest = self.newest_in(&mut session, run, fresh_when).await?;
        session.hand_back();
        Ok(newest)
    }

    async fn newest_in(
        &self,
        session: &mut Session,
        run: &RunFacts,
        fresh_when: &FreshWhen,
    ) -> Result<Option<Timestamp>, WarehouseError> {
        let dialect = self.schema.dialect;
        let problems = lint(&fresh_when.sql, "", dialect);
        if let Some(problem) = problems.into_iter().find(|p| !p.is_note) {
            return Err(wrong(&problem.message));
        }
        let what = run.run.as_str();
        let reading = self.schema.begin_reading(what);
        if let Some(begin) = &reading {
            session.run(begin).await?;
        }
        let rows = session.rows(&fresh_when.statement(&run.run, dialect)).await;
        let rows = rows.map_err(in_fresh_when)?;
        if reading.is_some() {
            session.run(&self.schema.commit(what)).await?;
        }
        let [row] = rows.as_slice() else {
            return match rows.is_empty() {
                true => Ok(None),
                false => Err(wrong("it must return one value, and returns several rows")),
            };
        };
        match row.as_slice() {
            [None] => Ok(None),
            [Some(text)] => match instant(text) {
                Some(instant) => Ok(Some(instant)),
                None => Err(wrong(
                    "it must return a timestamp, and returns something else",
                )),
            },
            _ => Err(wrong(
                "it must return one value, and returns several columns",
            )),
        }
    }
}

/// How recent the data is of a run that is not begun; nothing is written.
pub async fn newest_data(
    options: ConnectorOptions,
    run: &RunFacts,
    fresh_when: &FreshWhen,
) -> Result<Option<Timestamp>, WarehouseError> {
    let warehouse = SqlWarehouse::new(options.reading());
    let mut session = warehouse.pool.session().await?;
    let newest = warehouse.newest_in(&mut session, run, fresh_when).await;
    session.close().await;
    newest
}

/// As databases write timestamps; UTC where there is no offset.
fn instant(text: &str) -> Option<Timestamp> {
    let with_offset = text.parse::<Timestamp>().ok();
    with_offset.or_else(|| {
        let local: DateTime = text.parse().ok()?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

fn wrong(what: &str) -> WarehouseError {
    error(
        WarehouseErrorClass::Statement,
        format!("fresh_when.sql: {what}"),
    )
}

/// The place is one in this query, not in the audience's.
fn in_fresh_when(problem: WarehouseError) -> WarehouseError {
    let place = match problem.place {
        Some((line, column)) => format!(", line {line}, column {column}"),
        None => String::new(),
    };
    WarehouseError {
        message: format!("fresh_when.sql{place}: {}", problem.message),
        place: None,
        ..problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_read_as_each_database_writes_it() {
        for text in [
            "2026-11-22 14:00:00",
            "2026-11-22 14:00:00+00",
            "2026-11-22 19:30:00.000000+05:30",
            "2026-11-22T14:00:00Z",
        ] {
            assert_eq!(instant(text), "2026-11-22T14:00:00Z".parse().ok(), "{text}");
        }
        assert_eq!(instant("2026-11-22"), "2026-11-22T00:00:00Z".parse().ok());
        for text in ["infinity", "", "7"] {
            assert_eq!(instant(text), None, "{text}");
        }
    }
}
