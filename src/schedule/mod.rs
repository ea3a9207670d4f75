//! When a campaign's runs are due: cron expressions in a time zone, what is
//! done about missed fire times and about overlap. Told the time, never asks.

mod backlog;
mod changes;
mod civil;
mod cron;
mod due;
mod edited;
mod fields;
pub mod forecast;
mod futile;
mod line;
mod notes;
mod overlap;
mod plan;
mod terms;
mod walk;
mod window;
mod zone;

pub use changes::ClockNote;
pub use due::{Due, Look, Seen, due, passed_over};
pub use edited::{Ceased, in_force_from, left_behind};
pub use line::{Line, Standing, Ticket};
pub use notes::clock_note;
pub use overlap::{Earlier, Start, start};
pub use plan::{Schedule, SchedulePart, ScheduleProblem, WhenText};
pub use terms::{Blackout, CatchUp, Overlap, Terms, spread_offset};
pub use window::SendWindow;

#[cfg(test)]
mod tests;
