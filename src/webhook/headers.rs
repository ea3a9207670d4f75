//! The headers of a destination's requests, checked once.

use super::WebhookError;
use super::options::{Auth, DestinationOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;

/// Names that are ours or the connection's.
const RESERVED: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-key",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// What every request to the destination carries, whatever its batch.
pub(super) fn fixed_headers(options: &DestinationOptions) -> Result<HeaderMap, WebhookError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in &options.headers {
        let bad = |why| WebhookError::BadHeader {
            name: name.clone(),
            why,
        };
        let key: HeaderName = name.parse().map_err(|_| bad("is not a header name"))?;
        if RESERVED.contains(&key.as_str()) {
            return Err(bad("is set by campaignd itself"));
        }
        if key == AUTHORIZATION && options.auth.is_some() {
            return Err(bad("is set by `auth`"));
        }
        let value = sensitive(value.expose_secret()).ok_or_else(|| bad(UNFIT))?;
        headers.insert(key, value);
    }
    let authorization = match &options.auth {
        None | Some(Auth::OAuth2(_)) => None,
        Some(Auth::Bearer(token)) => Some(format!("Bearer {}", token.expose_secret())),
        Some(Auth::Basic { user, password }) => {
            let pair = STANDARD.encode(format!("{user}:{}", password.expose_secret()));
            Some(format!("Basic {pair}"))
        }
    };
    if let Some(text) = authorization {
        let value = sensitive(&text).ok_or_else(|| WebhookError::BadHeader {
            name: "authorization".to_owned(),
            why: UNFIT,
        })?;
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

const UNFIT: &str = "has a value with line breaks or control characters";

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
