//! When a campaign's runs are due: cron expressions in a time zone, what is
//! done about missed fire times and about overlap. Told the time, never asks.

mod cron;
mod due;
mod fields;
pub mod forecast;
mod line;
mod overlap;
mod plan;
mod walk;
mod zone;

pub use due::{Due, Look, Seen, due};
pub use line::{Line, Standing, Ticket};
pub use overlap::{Start, skip_if_open};
pub use plan::{Schedule, SchedulePart, ScheduleProblem};

#[cfg(test)]
mod tests;
