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
    /// What we show of ourselves where the other side asks.
    pub client_certificate: Option<ClientCertificate>,
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
    /// `Bearer <token>`, the token being fetched when needed.
    OAuth2(OAuth2),
}

/// How tokens are asked for: RFC 6749, section 4.4.
#[derive(Debug, Clone)]
pub struct OAuth2 {
    /// Where.
    pub token_url: String,
    /// As whom.
    pub client_id: String,
    /// And its secret.
    pub client_secret: SecretString,
    /// What for, if the host wants to be told.
    pub scope: Option<String>,
}

/// A client's certificate, PEM.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The certificate, and those between it and its root.
    pub cert_file: PathBuf,
    /// Its private key, without a password.
    pub key_file: PathBuf,
}
