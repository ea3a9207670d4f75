//! What cannot be written into the warehouse.

use crate::audience::BadText;

/// Why a row cannot be written as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// It holds text that no literal can hold.
    #[error(transparent)]
    Text(#[from] BadText),
}
