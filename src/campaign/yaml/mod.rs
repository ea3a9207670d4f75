//! Reading YAML so that everything wrong with a file is said at once, each
//! thing with its place. Used for campaign files and for the operator's file.

mod field;
mod lines;
mod mask;
mod nearest;
mod place;
mod quantity;
mod raw;
mod reader;
mod section;
mod spans;
mod tree;

pub use field::Field;
pub use mask::masked;
pub use nearest::{nearest, suggestion};
pub use place::{Problem, Severity, Source, decode};
pub use quantity::{parse_duration, parse_size, shown_duration};
pub use reader::Reader;
pub use section::Section;
pub use tree::Document;

/// The longest file that is read, in bytes; campaign files have a few hundred
/// lines at most, so that more is a mistake.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
