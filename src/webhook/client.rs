//! The HTTP client of a destination: where it may go, and what it trusts.

use super::WebhookError;
use super::guard::refusal;
use super::options::{ClientCertificate, DestinationOptions};
use super::resolver::GuardedResolver;
use reqwest::{Certificate, Client, ClientBuilder, Identity, Url, redirect, retry};
use secrecy::zeroize::Zeroizing;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// How long a connection may take to come about, whatever the time-out: a
/// host that does not answer here will not answer later.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Header lines in an answer; more is not an answer.
const MAX_ANSWER_HEADERS: usize = 100;

/// How often a quiet connection is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The URL under `key`, if it may be used.
pub(super) fn checked_url(
    key: &'static str,
    text: &str,
    options: &DestinationOptions,
) -> Result<Url, WebhookError> {
    let bad = |why| Err(WebhookError::BadUrl { key, why });
    let Ok(url) = Url::parse(text) else {
        return bad("is not one");
    };
    match url.scheme() {
        "https" => {}
        "http" if options.allow_http => {}
        "http" => return Err(WebhookError::HttpRefused { key }),
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

/// Host and port of `url`: what messages show of it.
pub(super) fn shown_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// A client bounded as the operator has laid down, `finish`ed by the caller.
/// `is_plain` says that it will never see a certificate.
pub(super) fn client(
    options: &DestinationOptions,
    is_plain: bool,
    finish: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client, WebhookError> {
    let max_idle = usize::try_from(options.max_in_flight).unwrap_or(usize::MAX);
    let mut builder = Client::builder()
        .user_agent(concat!("campaignd/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .https_only(!options.allow_http)
        .dns_resolver(GuardedResolver::new(options.allow_private_network))
        .connect_timeout(CONNECT_TIMEOUT.min(options.timeout))
        .timeout(options.timeout)
        .pool_max_idle_per_host(max_idle)
        .tcp_nodelay(true)
        .tcp_keepalive(KEEPALIVE)
        .http1_max_headers(MAX_ANSWER_HEADERS);
    if let Some(path) = &options.tls_ca_file {
        // Beside the system's roots, not instead of them.
        builder = builder.tls_certs_merge(certificates(path)?);
    } else if is_plain {
        // No certificate is looked at: nor need the system have any.
        builder = builder.tls_certs_only([]);
    }
    if let Some(own) = &options.client_certificate {
        builder = builder.identity(identity(own)?);
    }
    finish(builder)
        .build()
        .map_err(|_| match &options.tls_ca_file {
            Some(path) => WebhookError::File {
                key: "tls_ca_file",
                path: path.clone(),
                why: "a certificate in it is not sound".to_owned(),
            },
            None => WebhookError::Client,
        })
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, WebhookError> {
    certificates_in("tls_ca_file", path, &read("tls_ca_file", path)?)
}

fn certificates_in(
    key: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<Certificate>, WebhookError> {
    let found = Certificate::from_pem_bundle(pem).unwrap_or_default();
    if found.is_empty() {
        return Err(unfit(key, path, "it holds no PEM certificate"));
    }
    Ok(found)
}

/// What we show of ourselves: the certificate with its chain, and its key.
fn identity(own: &ClientCertificate) -> Result<Identity, WebhookError> {
    const CERT: &str = "client_cert_file";
    const KEY: &str = "client_key_file";
    let mut pem = Zeroizing::new(read(CERT, &own.cert_file)?);
    certificates_in(CERT, &own.cert_file, &pem)?;
    let key = Zeroizing::new(read(KEY, &own.key_file)?);
    pem.push(b'\n');
    pem.extend_from_slice(&key);
    let identity = Identity::from_pem(&pem).map_err(|_| {
        unfit(
            KEY,
            &own.key_file,
            "it holds no PEM private key without a password",
        )
    })?;
    // Whether the two belong together shows when a client is made of them.
    let alone = Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .identity(identity.clone())
        .build();
    match alone {
        Ok(_) => Ok(identity),
        Err(_) => Err(unfit(
            KEY,
            &own.key_file,
            "it is not the key of the certificate in `client_cert_file`",
        )),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, WebhookError> {
    std::fs::read(path).map_err(|error| unfit(key, path, &error.to_string()))
}

fn unfit(key: &'static str, path: &Path, why: &str) -> WebhookError {
    WebhookError::File {
        key,
        path: path.to_owned(),
        why: why.to_owned(),
    }
}
