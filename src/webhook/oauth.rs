//! Tokens by OAuth 2.0 client credentials (RFC 6749, section 4.4): fetched
//! when needed, kept while they hold, fetched once for all who wait.

use super::WebhookError;
use super::client::{checked_url, shown_host};
use super::failure::{why_ambiguous, why_not_sent};
use super::options::{DestinationOptions, OAuth2};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, Url};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::form_urlencoded::{Serializer, byte_serialize};

/// The longest a token is waited for, whatever the destination's time-out: a
/// signed timestamp must not grow old meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// A token is not used in its last moments: it may end on the way.
const MARGIN: Duration = Duration::from_secs(30);

/// How long a token holds that does not say.
const USUAL_LIFE: Duration = Duration::from_secs(5 * 60);

/// The longest a token is kept, whatever it says.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// How much of a token host's answer is read: tokens are a few KiB.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why a token host refuses, as RFC 6749, section 5.2 spells it; nothing else
/// that it says is repeated.
const KNOWN_ERRORS: &[&str] = &[
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// A token, and which one it is.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// `Bearer …`, marked as sensitive.
    pub(super) header: HeaderValue,
    number: u64,
    until: Instant,
}

/// Where a destination's tokens come from.
pub(super) struct Tokens {
    client: Client,
    url: Url,
    host: String,
    client_id: String,
    client_secret: SecretString,
    scope: Option<String>,
    timeout: Duration,
    /// Held while a token is fetched, so that one is fetched for all.
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// When the last fetch failed, and why: the answer for all who waited.
    failed: Option<(Instant, String)>,
    fetched: u64,
}

impl Tokens {
    /// Checks what the operator has laid down; dials nothing. `client` has
    /// none of the destination's own headers.
    pub(super) fn new(
        oauth2: &OAuth2,
        options: &DestinationOptions,
        client: Client,
    ) -> Result<Self, WebhookError> {
        let url = checked_url("token_url", &oauth2.token_url, options)?;
        Ok(Self {
            client,
            host: shown_host(&url),
            url,
            client_id: oauth2.client_id.clone(),
            client_secret: oauth2.client_secret.clone(),
            scope: oauth2.scope.clone(),
            timeout: options.timeout.min(PATIENCE),
            held: Mutex::default(),
        })
    }

    /// A token that holds and is not the `refused` one, by `deadline`; or why
    /// there is none, in our words.
    pub(super) async fn get(
        &self,
        refused: Option<&Token>,
        deadline: Instant,
    ) -> Result<Token, String> {
        let getting = self.held_or_fetched(refused.map(|token| token.number));
        match tokio::time::timeout_at(deadline, getting).await {
            Ok(got) => got,
            Err(_) => Err(format!("no token from {} in time", self.host)),
        }
    }

    async fn held_or_fetched(&self, refused: Option<u64>) -> Result<Token, String> {
        let asked = Instant::now();
        let mut held = self.held.lock().await;
        if let Some(token) = &held.token
            && Some(token.number) != refused
            && Instant::now() < token.until
        {
            return Ok(token.clone());
        }
        if let Some((at, why)) = &held.failed
            && *at > asked
        {
            return Err(why.clone());
        }
        held.token = None;
        match self.fetch().await {
            Ok((header, life)) => {
                held.fetched += 1;
                let token = Token {
                    header,
                    number: held.fetched,
                    until: Instant::now() + life,
                };
                held.token = Some(token.clone());
                Ok(token)
            }
            Err(why) => {
                let why = format!("no token from {}: {why}", self.host);
                held.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    async fn fetch(&self) -> Result<(HeaderValue, Duration), String> {
        // Section 2.3.1: both halves are form-encoded before they are joined.
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let user = encoded(&self.client_id);
        let password = encoded(self.client_secret.expose_secret());
        let sending = self
            .client
            .post(self.url.clone())
            .timeout(self.timeout)
            .basic_auth(user, Some(password))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(self.form());
        let response = sending.send().await.map_err(|error| self.lost(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        if !status.is_success() {
            return Err(refusal(status.as_u16(), &body));
        }
        granted(&body)
    }

    fn form(&self) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        form.finish()
    }

    fn lost(&self, error: &reqwest::Error) -> String {
        if error.is_connect() {
            why_not_sent(error, &self.host)
        } else {
            why_ambiguous(error, &self.host, self.timeout)
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.lost(&error))? {
            if body.len() + piece.len() > MAX_ANSWER_BYTES {
                return Err("its answer is too long for a token".to_owned());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

/// The part of RFC 6749, section 5.1 that matters here.
#[derive(Deserialize)]
struct Grant {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// The header a token makes, and how long it is used.
fn granted(body: &[u8]) -> Result<(HeaderValue, Duration), String> {
    let Ok(grant) = serde_json::from_slice::<Grant>(body) else {
        return Err("its answer is not JSON with an `access_token`".to_owned());
    };
    let kind = grant.token_type.as_deref().unwrap_or("bearer");
    if !kind.eq_ignore_ascii_case("bearer") {
        return Err("its token is not a bearer token".to_owned());
    }
    let token = Zeroizing::new(grant.access_token);
    let is_sound = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    let header = HeaderValue::from_str(&Zeroizing::new(format!("Bearer {}", *token)));
    let (Ok(mut header), true) = (header, is_sound) else {
        return Err("its token cannot be sent as a header".to_owned());
    };
    header.set_sensitive(true);
    Ok((header, life(grant.expires_in.as_ref())))
}

/// How long a token is used that says `expires_in`: until our margin, or for
/// half its life where that is longer. Some hosts write the seconds as text.
fn life(expires_in: Option<&serde_json::Value>) -> Duration {
    let seconds = match expires_in {
        Some(serde_json::Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
        None => None,
    };
    let whole = seconds.map_or(USUAL_LIFE, Duration::from_secs);
    let whole = whole.min(LONGEST_LIFE);
    whole.saturating_sub(MARGIN).max(whole / 2)
}

fn refusal(status: u16, body: &[u8]) -> String {
    let said = serde_json::from_slice::<Refusal>(body).ok();
    let known = said.and_then(|said| KNOWN_ERRORS.iter().find(|known| **known == said.error));
    let advice = match (known.copied(), status) {
        (Some("invalid_scope"), _) => "check `scope`",
        (_, 300..=399) => "a redirect, which is never followed; set `token_url` to where it leads",
        (_, 404 | 405) => "check `token_url`",
        (_, 429 | 500..) => "it is asked again later",
        _ => "check `client_id`, `client_secret` and `scope`",
    };
    match known {
        Some(error) => format!("it answered {status} ({error}); {advice}"),
        None => format!("it answered {status}; {advice}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_token_is_used_until_half_a_minute_before_its_end() {
        let seconds = |value: serde_json::Value| life(Some(&value)).as_secs();
        assert_eq!(seconds(json!(3600)), 3570);
        assert_eq!(seconds(json!("3600")), 3570);
        assert_eq!(seconds(json!(40)), 20);
        assert_eq!(seconds(json!(0)), 0);
        assert_eq!(seconds(json!(u64::MAX)), 86_370);
        assert_eq!(seconds(json!(-1)), 270);
        assert_eq!(seconds(json!("soon")), 270);
        assert_eq!(life(None).as_secs(), 270);
    }

    #[test]
    fn a_grant_becomes_a_header_that_debug_does_not_show() {
        let (header, _) = granted(br#"{"access_token":"t0k","token_type":"bEaReR"}"#).unwrap();
        assert_eq!(header, "Bearer t0k");
        assert!(!format!("{header:?}").contains("t0k"));
    }

    #[test]
    fn what_is_no_grant_is_said_without_quoting_it() {
        for (body, says) in [
            ("<html>s3cret</html>", "not JSON"),
            (r#"{"token":"s3cret"}"#, "not JSON with"),
            (
                r#"{"access_token":"s3cret","token_type":"mac"}"#,
                "not a bearer",
            ),
            (r#"{"access_token":""}"#, "cannot be sent"),
            (r#"{"access_token":"s3cret\r\nx: y"}"#, "cannot be sent"),
        ] {
            let why = granted(body.as_bytes()).unwrap_err();
            assert!(why.contains(says) && !why.contains("s3cret"), "{why}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do_and_repeats_only_known_words() {
        let said = refusal(
            401,
            br#"{"error":"invalid_client","error_description":"x"}"#,
        );
        assert_eq!(
            said,
            "it answered 401 (invalid_client); check `client_id`, `client_secret` and `scope`"
        );
        let said = refusal(400, br#"{"error":"s3cret"}"#);
        assert!(!said.contains("s3cret"), "{said}");
        assert!(refusal(302, b"").contains("never followed"));
    }
}
