//! What can be wrong with a destination before anything is sent.

use super::guard::AddressRefused;
use crate::delivery::BadSecret;
use std::path::PathBuf;

/// A destination that cannot be used as the operator has laid it down. Never
/// says a secret, nor the URL, which may hold one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The URL cannot be used.
    #[error("its `{key}` {why}")]
    BadUrl {
        /// Which one.
        key: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It would go out unencrypted.
    #[error("its `{key}` begins with `http://`; use `https://`, or set `allow_http: true`")]
    HttpRefused {
        /// Which one.
        key: &'static str,
    },
    /// Its host is an address that may not be dialled.
    #[error(transparent)]
    AddressRefused(#[from] AddressRefused),
    /// A signing secret cannot be used.
    #[error(transparent)]
    Secret(#[from] BadSecret),
    /// Nothing to sign with.
    #[error("its `signing_secrets` are empty; give at least one `whsec_…`")]
    NoSecret,
    /// A header cannot be sent.
    #[error("its header `{name}` {why}")]
    BadHeader {
        /// The header's name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file with a certificate or key cannot be used.
    #[error("its `{key}` {} cannot be used: {why}", path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The HTTP client cannot be made.
    #[error(
        "the system's root certificates cannot be used; install them (Debian: `ca-certificates`), or set `tls_ca_file`"
    )]
    Client,
}
