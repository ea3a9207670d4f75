//! Reading YAML so that everything wrong with a file is said at once, each
//! thing with its place. Used for campaign files and for the operator's file.

mod nearest;
mod place;
mod quantity;
mod raw;
mod reader;
mod spans;
mod tree;

pub use nearest::{nearest, suggestion};
pub use place::{Problem, Severity, Source, decode};
pub use quantity::{parse_duration, parse_size};
pub use reader::{Field, Reader, Section};
pub use tree::{Data, Document};

/// The longest file that is read, in bytes; campaign files have a few hundred
/// lines at most, so that more is a mistake.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
