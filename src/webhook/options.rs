//! How a destination is reached: what the operator's file says, with secrets
//! resolved.

use secrecy::SecretString;
use std::path::PathBuf;
use std::time::Duration;

/// A destination.
#[derive(Debug, Clone)]
pub struct DestinationOptions {
    /// Where requests go.
    pub url: String,
    /// `whsec_…`, or the bare base64 of it; one signature for each.
    pub signing_secrets: Vec<SecretString>,
    /// Headers sent with each request.
    pub headers: Vec<(String, SecretString)>,
    /// The `Authorization` header.
    pub auth: Option<Auth>,
    /// An extra root certificate, PEM.
    pub tls_ca_file: Option<PathBuf>,
    /// The longest one attempt may take.
    pub timeout: Duration,
    /// Requests at a time.
    pub max_in_flight: u32,
    /// Whether loopback and private addresses may be dialled.
    pub allow_private_network: bool,
    /// Whether `http://` may be used.
    pub allow_http: bool,
}

/// What the `Authorization` header is made of.
#[derive(Debug, Clone)]
pub enum Auth {
    /// `Bearer <token>`.
    Bearer(SecretString),
    /// `Basic <user:password>`.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: SecretString,
    },
}
