//! Files read as text, within bounds.

use crate::campaign::yaml::{MAX_FILE_BYTES, decode};
use crate::campaign::{Problem, Source};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A file's name and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceText {
    /// The path, as the user would write it.
    pub name: String,
    /// The text.
    pub text: String,
}

impl SourceText {
    /// What is compiled.
    pub fn source(&self) -> Source<'_> {
        Source {
            name: &self.name,
            text: &self.text,
        }
    }
}

/// Reads a text file of at most 1 MiB; anything but a file (a folder, a pipe)
/// is refused before it is opened, since it could block.
pub fn read(path: &Path) -> Result<SourceText, Problem> {
    let name = path.display().to_string();
    let refuse = |why: String| Problem::of_file(&name, format!("could not read the file: {why}"));
    let metadata = std::fs::metadata(path).map_err(|error| refuse(said(&error)))?;
    if !metadata.is_file() {
        return Err(refuse("it is not a file".to_owned()));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, so that `decode` sees that it is too long.
    let limit = MAX_FILE_BYTES as u64 + 1;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| refuse(said(&error)))?;
    let text = decode(&name, bytes)?;
    Ok(SourceText { name, text })
}

/// What the system says, without its number.
fn said(error: &std::io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_owned()
}
