//! A destination over HTTP: one client, one attempt at a time asked for.

use super::WebhookError;
use super::body::HeldBody;
use super::failure::{why_ambiguous, why_not_sent};
use super::guard::refusal;
use super::headers::fixed_headers;
use super::options::DestinationOptions;
use super::reach::reach;
use super::resolver::GuardedResolver;
use crate::delivery::{Outcome, SigningKey, retry_after, sign};
use crate::run::{Destination, Request};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Body, Certificate, Client, Response, Url, redirect, retry};
use secrecy::ExposeSecret;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// How long a connection may take to come about, whatever the time-out: a
/// host that does not answer here will not answer later.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of an answer is read: enough for an ordinary one to end, so that
/// its connection is used again. A longer one costs its connection.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Header lines in an answer; more is not an answer.
const MAX_ANSWER_HEADERS: usize = 100;

/// How often a quiet connection is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A destination that takes signed requests at a URL.
pub struct HttpDestination {
    client: Client,
    url: Url,
    /// For messages: without path and query, which may hold a secret.
    host: String,
    keys: Vec<SigningKey>,
    timeout: Duration,
    allow_private_network: bool,
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
        let url = checked_url(&options)?;
        let keys = options
            .signing_secrets
            .iter()
            .map(|secret| SigningKey::parse(secret.expose_secret()))
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(WebhookError::NoSecret);
        }
        Ok(Self {
            client: client(&options, &url)?,
            host: shown_host(&url),
            url,
            keys,
            timeout: options.timeout,
            allow_private_network: options.allow_private_network,
        })
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
}

#[async_trait]
impl Destination for HttpDestination {
    async fn attempt(&self, request: Request) -> Outcome {
        let begun = Instant::now();
        let headers = self.headers(&request);
        let (body, hold) = HeldBody::new(request.body);
        let sending = self
            .client
            .post(self.url.clone())
            .headers(headers)
            .body(Body::wrap(body));
        match sending.send().await {
            Ok(response) => {
                let now = later(request.at, begun.elapsed());
                let outcome = answered(&response, now);
                drain(response).await;
                outcome
            }
            Err(error) if hold.withdraw() => Outcome::NotSent {
                reason: why_not_sent(&error, &self.host),
            },
            Err(error) => Outcome::Ambiguous {
                reason: why_ambiguous(&error, &self.host, self.timeout),
            },
        }
    }

    async fn reach(&self) -> Result<(), String> {
        reach(&self.url, self.allow_private_network).await
    }
}

fn answered(response: &Response, now: Timestamp) -> Outcome {
    let header = response.headers().get(RETRY_AFTER);
    let header = header.and_then(|value| value.to_str().ok());
    Outcome::Answered {
        status: response.status().as_u16(),
        retry_after: header.and_then(|text| retry_after(text, now)),
    }
}

/// Reads the answer's body to its end, so that the connection can be used
/// again, within bounds. What goes wrong here no longer matters: the status
/// line has been read.
async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(piece)) = response.chunk().await {
        read += piece.len();
        if read > MAX_ANSWER_BYTES {
            return;
        }
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| at.checked_add(by).ok())
        .unwrap_or(at)
}

fn checked_url(options: &DestinationOptions) -> Result<Url, WebhookError> {
    let bad = |why| Err(WebhookError::BadUrl { why });
    let Ok(url) = Url::parse(&options.url) else {
        return bad("is not one");
    };
    match url.scheme() {
        "https" => {}
        "http" if options.allow_http => {}
        "http" => return Err(WebhookError::HttpRefused),
        _ => return bad("must begin with `https://`"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("must not hold a user or password; use `auth`");
    }
    // The client asks the resolver about names alone, so an address is judged
    // here. Parsing has brought odd spellings of it (0x7f.1) into one form.
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = literal.parse::<IpAddr>()
        && let Some(refused) = refusal(address, options.allow_private_network)
    {
        return Err(refused.into());
    }
    Ok(url)
}

fn shown_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn client(options: &DestinationOptions, url: &Url) -> Result<Client, WebhookError> {
    let max_idle = usize::try_from(options.max_in_flight).unwrap_or(usize::MAX);
    let mut builder = Client::builder()
        .default_headers(fixed_headers(options)?)
        .user_agent(concat!("campaignd/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .https_only(!options.allow_http)
        .dns_resolver(GuardedResolver {
            allow_private_network: options.allow_private_network,
        })
        .connect_timeout(CONNECT_TIMEOUT.min(options.timeout))
        .timeout(options.timeout)
        .pool_max_idle_per_host(max_idle)
        .tcp_nodelay(true)
        .tcp_keepalive(KEEPALIVE)
        .http1_max_headers(MAX_ANSWER_HEADERS);
    if let Some(path) = &options.tls_ca_file {
        builder = builder.tls_certs_merge(certificates(path)?);
    } else if url.scheme() == "http" {
        // No certificate is looked at: nor need the system have any.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|_| WebhookError::Client)
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, WebhookError> {
    let bad = |why| WebhookError::CaFile {
        path: path.to_owned(),
        why,
    };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if found.is_empty() {
        return Err(bad("it holds no PEM certificate".to_owned()));
    }
    Ok(found)
}
