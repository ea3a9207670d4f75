//! `fresh_when` of a campaign file.

use super::sql_template;
use super::yaml::Section;
use crate::audience::{Dialect, FreshWhen};
use crate::delivery::template::RunValues;
use std::time::Duration;

/// The oldest data that is fresh, and the longest wait for it.
const MOST: Duration = Duration::from_secs(400 * 86_400);

pub(super) fn fresh_when_of(
    mut section: Section,
    values: &RunValues,
    dialect: Dialect,
) -> Option<FreshWhen> {
    let sql = section.required("sql");
    let max_age = section.required("max_age");
    let max_age = max_age.and_then(|f| f.duration(Duration::from_secs(1)..=MOST));
    let wait = section.optional("wait");
    let wait = wait.map_or(Some(Duration::ZERO), |f| f.duration(Duration::ZERO..=MOST));
    section.finish();
    let field = sql?;
    let text = field.filled_text()?;
    // One column, and no key: which columns it selects is nobody's business.
    let _ = sql_template::check(&field, text, None, (values, dialect));
    Some(FreshWhen {
        sql: text.to_owned(),
        max_age_secs: max_age?.as_secs(),
        wait_secs: wait?.as_secs(),
    })
}
