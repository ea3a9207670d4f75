//! A destination over HTTP: one client, one attempt at a time asked for.

use super::WebhookError;
use super::answer::{answered, has_odd_retry_after};
use super::body::HeldBody;
use super::client::{checked_url, client, shown_host};
use super::failure::{handshake_refusal, why_ambiguous, why_not_sent};
use super::headers::fixed_headers;
use super::oauth::{Token, Tokens};
use super::options::{Auth, DestinationOptions};
use super::reach::{JudgedAddress, connected, judged, reach};
use crate::delivery::{Outcome, SigningKey, sign};
use crate::run::{Destination, Request};
use crate::tls::{self, TlsReport};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, Method, Url};
use secrecy::ExposeSecret;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A receiver that says something odd says it with every answer.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(3600);

/// When something was last told of.
#[derive(Default)]
struct Told(Mutex<Option<Instant>>);

impl Told {
    /// Whether it is time to tell of it again; if so, it counts as told.
    fn is_due(&self) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|at| at.elapsed() < BETWEEN_WARNINGS) {
            return false;
        }
        *told = Some(Instant::now());
        true
    }
}

/// A destination that takes signed requests at a URL.
pub struct HttpDestination {
    client: Client,
    url: Url,
    /// For messages: without path and query, which may hold a secret.
    host: String,
    keys: Vec<SigningKey>,
    /// Where `Authorization` comes from, if it is a token that ends.
    tokens: Option<Tokens>,
    timeout: Duration,
    allow_private_network: bool,
    told_of_retry_after: Told,
    told_of_no_way: Told,
}

impl fmt::Debug for HttpDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpDestination")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl HttpDestination {
    /// Checks what the operator has laid down; dials nothing.
    pub fn new(options: DestinationOptions) -> Result<Self, WebhookError> {
        let url = checked_url("url", &options.url, &options)?;
        let keys = options
            .signing_secrets
            .iter()
            .map(|secret| SigningKey::parse(secret.expose_secret()))
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(WebhookError::NoSecret);
        }
        let fixed = fixed_headers(&options)?;
        let tokens = match &options.auth {
            Some(Auth::OAuth2(oauth2)) => {
                let is_plain = oauth2.token_url.starts_with("http://");
                let client = client(&options, is_plain, |builder| builder)?;
                Some(Tokens::new(oauth2, &options, client)?)
            }
            _ => None,
        };
        let is_plain = url.scheme() == "http";
        Ok(Self {
            client: client(&options, is_plain, |builder| builder.default_headers(fixed))?,
            tokens,
            host: shown_host(&url),
            url,
            keys,
            timeout: options.timeout,
            allow_private_network: options.allow_private_network,
            told_of_retry_after: Told::default(),
            told_of_no_way: Told::default(),
        })
    }

    /// The addresses its host has now, each judged; dials none. An error says
    /// why there are none.
    pub async fn addresses(&self) -> Result<Vec<JudgedAddress>, String> {
        judged(&self.url, self.allow_private_network).await
    }

    /// What its host shows of itself in TLS now, over a connection of its own
    /// that carries nothing else; none where it speaks none. An error says what
    /// was in the way.
    pub async fn tls(&self) -> Option<Result<TlsReport, String>> {
        match self.url.scheme() {
            "https" => {
                let connecting = connected(&self.url, self.allow_private_network);
                let host = self.url.host_str().unwrap_or_default();
                Some(tls::look(host, connecting).await)
            }
            _ => None,
        }
    }

    fn headers(&self, request: &Request) -> HeaderMap {
        let text = |text: &str| HeaderValue::from_str(text).expect("ids and base64 are ASCII");
        let id = text(&request.id.to_string());
        let signature = sign(&self.keys, &request.id, request.at, &request.body);
        let own = request.headers.iter().filter_map(|(name, value)| {
            Some((
                HeaderName::from_static(name),
                HeaderValue::from_str(value).ok()?,
            ))
        });
        own.chain([
            (CONTENT_TYPE, HeaderValue::from_static(request.content_type)),
            (IDEMPOTENCY_KEY, id.clone()),
            (WEBHOOK_ID, id),
            (WEBHOOK_TIMESTAMP, request.at.as_second().into()),
            (WEBHOOK_SIGNATURE, text(&signature)),
        ])
        .collect()
    }

    /// One request, within what is left of the attempt's time.
    async fn send(&self, request: &Request, token: Option<&Token>, begun: Instant) -> Outcome {
        let left = self.timeout.saturating_sub(begun.elapsed());
        let mut headers = self.headers(request);
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.header.clone());
        }
        let (body, hold) = HeldBody::new(request.body.clone(), begun + self.timeout);
        let mut sending = reqwest::Request::new(Method::POST, self.url.clone());
        *sending.headers_mut() = headers;
        *sending.timeout_mut() = Some(left);
        *sending.body_mut() = Some(Body::wrap(body));
        match self.client.execute(sending).await {
            Ok(response) => {
                let now = later(request.at, begun.elapsed());
                if has_odd_retry_after(&response, now) {
                    self.tell_of_retry_after();
                }
                answered(response, now, request.rejected_at.as_deref()).await
            }
            Err(error) if hold.withdraw() => {
                let reason = why_not_sent(&error, &self.host);
                if self.told_of_no_way.is_due() {
                    let host = &self.host;
                    tracing::warn!(
                        destination.host = host,
                        "nothing was sent: {reason}; trying again (said once an hour)"
                    );
                }
                Outcome::NotSent { reason }
            }
            Err(error) => match handshake_refusal(&error, &self.host) {
                Some(reason) => Outcome::NotSent { reason },
                None => Outcome::Ambiguous {
                    reason: why_ambiguous(&error, &self.host, self.timeout),
                },
            },
        }
    }

    /// Warns that `Retry-After` says nothing, and repeats none of its words.
    fn tell_of_retry_after(&self) {
        if !self.told_of_retry_after.is_due() {
            return;
        }
        let host = &self.host;
        tracing::warn!(
            destination.host = host,
            "{host} answered with a `Retry-After` that is neither seconds nor an HTTP date; it is \
             ignored, and our own delays hold (said once an hour)"
        );
    }

    /// The same under a token. A 401 is a definite no that a token which has
    /// been withdrawn brings about: so once more, under another.
    async fn send_with(&self, tokens: &Tokens, request: &Request, begun: Instant) -> Outcome {
        let deadline = begun + self.timeout;
        let mut refused: Option<Token> = None;
        loop {
            let token = match tokens.get(refused.as_ref(), deadline).await {
                Ok(token) => token,
                Err(reason) => return Outcome::NotSent { reason },
            };
            let outcome = self.send(request, Some(&token), begun).await;
            let is_refused = matches!(outcome, Outcome::Answered { status: 401, .. });
            if !is_refused || refused.is_some() {
                return outcome;
            }
            refused = Some(token);
        }
    }
}

#[async_trait]
impl Destination for HttpDestination {
    async fn attempt(&self, request: Request) -> Outcome {
        let begun = Instant::now();
        match &self.tokens {
            Some(tokens) => self.send_with(tokens, &request, begun).await,
            None => self.send(&request, None, begun).await,
        }
    }

    async fn reach(&self) -> Result<(), String> {
        reach(&self.url, self.allow_private_network).await
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| at.checked_add(by).ok())
        .unwrap_or(at)
}
