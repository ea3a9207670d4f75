//! Where the operator's file is.

use super::secret::Secrets;
use std::path::PathBuf;

/// Where it is unless something else is said.
pub const DEFAULT_CONFIG: &str = "/etc/campaignd/campaignd.yaml";

/// The operator's file: `--config`, else `CAMPAIGND_CONFIG`, else
/// [`DEFAULT_CONFIG`].
pub fn locate(flag: Option<PathBuf>, process: &Secrets) -> PathBuf {
    flag.or_else(|| process.variable("CAMPAIGND_CONFIG").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_comes_before_the_environment_and_both_before_the_default() {
        let process = Secrets::of([("CAMPAIGND_CONFIG", "/b")]);
        assert_eq!(locate(Some("/a".into()), &process), PathBuf::from("/a"));
        assert_eq!(locate(None, &process), PathBuf::from("/b"));
        let empty = Secrets::of([]);
        assert_eq!(locate(None, &empty), PathBuf::from(DEFAULT_CONFIG));
    }
}
