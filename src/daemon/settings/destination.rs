//! A destination: one channel's endpoint, and how it is treated.

use super::secret::{Secret, Secrets, SettingsError};
use crate::campaign::DestinationTerms;
use crate::delivery::{Format, Rate, Rules};
use crate::webhook::{Auth, ClientCertificate, DestinationOptions, OAuth2};
use secrecy::ExposeSecret;
use std::path::PathBuf;

/// A channel's endpoint the operator has defined.
#[derive(Debug, Clone)]
pub struct DestinationSettings {
    /// Where requests go.
    pub url: String,
    /// How a person is reached; a label.
    pub channel: String,
    /// At least one; several while rotating.
    pub signing_secrets: Vec<Secret>,
    /// Headers sent with each request.
    pub headers: Vec<(String, Secret)>,
    /// The `Authorization` header.
    pub auth: Option<DestinationAuth>,
    /// An extra root certificate, PEM.
    pub tls_ca_file: Option<PathBuf>,
    /// What we show of ourselves where the other side asks.
    pub client_certificate: Option<ClientCertificate>,
    /// How deliveries are timed and retried.
    pub rules: Rules,
    /// Requests at a time.
    pub max_in_flight: u32,
    /// Requests in a span of time.
    pub rate_limit: Option<Rate>,
    /// The longest body, in bytes.
    pub max_body: u64,
    /// The form of its bodies.
    pub format: Format,
    /// Whether loopback and private addresses may be dialled.
    pub allow_private_network: bool,
    /// Whether `http://` may be used.
    pub allow_http: bool,
}

/// What the `Authorization` header is made of.
#[derive(Debug, Clone)]
pub enum DestinationAuth {
    /// `Bearer <token>`.
    Bearer(Secret),
    /// `Basic <user:password>`.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// `Bearer <token>`, the token being fetched when needed.
    OAuth2 {
        /// Where.
        token_url: String,
        /// As whom.
        client_id: String,
        /// And its secret.
        client_secret: Secret,
        /// What for, if the host wants to be told.
        scope: Option<String>,
    },
}

impl DestinationSettings {
    /// How it is reached, with secrets resolved.
    pub fn options(&self, secrets: &Secrets) -> Result<DestinationOptions, SettingsError> {
        let signing = self.signing_secrets.iter();
        let headers = self.headers.iter().map(|(name, secret)| {
            let value = secret.resolve(secrets)?;
            if !is_header_value(value.expose_secret()) {
                return Err(secret.error("cannot be sent as a header"));
            }
            Ok((name.clone(), value))
        });
        let auth = match &self.auth {
            None => None,
            Some(DestinationAuth::Bearer(token)) => {
                let value = token.resolve(secrets)?;
                if !is_header_value(value.expose_secret()) {
                    return Err(token.error("cannot be sent as a header"));
                }
                Some(Auth::Bearer(value))
            }
            Some(DestinationAuth::Basic { user, password }) => Some(Auth::Basic {
                user: user.clone(),
                password: password.resolve(secrets)?,
            }),
            Some(DestinationAuth::OAuth2 {
                token_url,
                client_id,
                client_secret,
                scope,
            }) => Some(Auth::OAuth2(OAuth2 {
                token_url: token_url.clone(),
                client_id: client_id.clone(),
                client_secret: client_secret.resolve(secrets)?,
                scope: scope.clone(),
            })),
        };
        Ok(DestinationOptions {
            url: self.url.clone(),
            signing_secrets: signing
                .map(|secret| secret.resolve(secrets))
                .collect::<Result<_, _>>()?,
            headers: headers.collect::<Result<_, _>>()?,
            auth,
            tls_ca_file: self.tls_ca_file.clone(),
            client_certificate: self.client_certificate.clone(),
            timeout: self.rules.timeout,
            max_in_flight: self.max_in_flight,
            allow_private_network: self.allow_private_network,
            allow_http: self.allow_http,
        })
    }

    /// Scheme, host and port of its URL: what may be shown of it.
    pub fn origin(&self) -> String {
        match url::Url::parse(&self.url) {
            Ok(url) => url.origin().ascii_serialization(),
            Err(_) => String::new(),
        }
    }

    /// How deliveries are timed and retried.
    pub fn rules(&self) -> Rules {
        self.rules.clone()
    }

    /// What of it reaches the bytes of a run.
    pub fn terms(&self) -> DestinationTerms {
        DestinationTerms {
            channel: self.channel.clone(),
            max_body: self.max_body,
            format: self.format,
        }
    }

    pub(super) fn each_path(&mut self, change: &impl Fn(&mut PathBuf)) {
        self.tls_ca_file.iter_mut().for_each(change);
        if let Some(own) = &mut self.client_certificate {
            change(&mut own.cert_file);
            change(&mut own.key_file);
        }
        let headers = self.headers.iter_mut().map(|(_, secret)| secret);
        let auth = self.auth.iter_mut().map(|auth| match auth {
            DestinationAuth::Bearer(secret) => secret,
            DestinationAuth::Basic { password, .. } => password,
            DestinationAuth::OAuth2 { client_secret, .. } => client_secret,
        });
        let secrets = self.signing_secrets.iter_mut().chain(headers).chain(auth);
        secrets.for_each(|secret| secret.each_path(change));
    }
}

/// Whether `value` may stand in a header: visible ASCII, blanks within.
pub(super) fn is_header_value(value: &str) -> bool {
    let sound = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b);
    value.trim() == value && value.bytes().all(sound)
}
