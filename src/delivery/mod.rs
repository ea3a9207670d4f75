//! Getting a batch accepted, without doing it: the payload and its signature,
//! what an attempt's outcome means, and what follows from it.

mod outcome;
mod page;
mod rules;

pub use outcome::{Outcome, Verdict};
pub use page::{Kind, Page, Row};
pub use rules::{OnAmbiguous, Rules};
