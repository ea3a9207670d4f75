//! Getting a batch accepted, without doing it: the payload and its signature,
//! what an attempt's outcome means, and what follows from it.

mod breaker;
mod course;
mod format;
mod json_value;
mod limit;
#[cfg(test)]
mod links;
mod mask;
mod outcome;
mod page;
mod payload;
mod rate;
mod rejections;
mod retry_after;
mod rules;
mod signature;
mod special;
mod split;
pub mod template;
mod template_bounds;
mod template_payload;
#[cfg(test)]
mod template_tests;
mod template_types;
mod template_value;
mod trial;
mod value;
mod verdict;

pub use breaker::{Ahead, Breaker, Turn, Way, has_failed};
pub use course::{Clearance, Course, Move};
pub use format::{Format, ascii_json};
pub use limit::{AdaptiveLimit, Load, load};
pub use outcome::{Outcome, Verdict};
pub use page::{Kind, Page, Row};
pub use payload::{Envelope, Renderer, Shape};
pub use rate::{BadRate, Rate, TokenBucket};
pub use rejections::{Rejection, Rejections, matching_rows};
pub use retry_after::retry_after;
pub use rules::{OnAmbiguous, Rules};
pub use signature::{BadSecret, SigningKey, body_hash, sign};
pub use special::MAX_ATTRIBUTES_HEADER;
pub use split::{SplitBudget, halves, rows_of_part};
pub use template_payload::{Payload, RenderError};
pub use template_types::{Misfit, misfits};
pub use trial::{Trial, trial};
pub use verdict::{may_resend, verdict};
