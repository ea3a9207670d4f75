//! The assembly: settings, the campaigns folder, and the process around them.

pub mod folder;
pub mod settings;
pub mod source;
