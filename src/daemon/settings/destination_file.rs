//! Reading a destination's section.

use super::address::is_private;
use super::destination::{DestinationAuth, DestinationSettings, is_header_value};
use super::destination_tls::client_certificate;
use super::oauth::{UrlRules, oauth2_of};
use super::secret::Secret;
use crate::campaign::yaml::{Field, Section};
use crate::delivery::{BadRate, Format, OnAmbiguous, Rate, Rules};
use crate::webhook::never_dialled;
use secrecy::ExposeSecret;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// The longest channel: the width of its column in `contact_history`.
const MAX_CHANNEL_BYTES: usize = 64;

/// Attempts take between these.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=seconds(600);

/// Delays and windows lie between these.
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(10)..=seconds(30 * 86_400);

/// Bodies are limited to between these.
const BODIES: RangeInclusive<u64> = 1024..=64 * 1024 * 1024;

/// Headers that are ours.
const OUR_HEADERS: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "transfer-encoding",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// What the headers begin with that carry the envelope of ndjson.
const ENVELOPE_HEADERS: &str = "campaignd-";

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl DestinationSettings {
    /// Reads one destination's section.
    pub(super) fn read(name: &str, mut section: Section) -> Option<Self> {
        let allow_private = section.optional("allow_private_network");
        let allow_private = allow_private.map_or(Some(false), |f| f.boolean());
        let allow_http = section.optional("allow_http");
        let allow_http = allow_http.map_or(Some(false), |f| f.boolean());
        let url = section.required("url");
        let url_rules = UrlRules {
            allow_http,
            allow_private,
        };
        let url = url.and_then(|f| url_of("url", &f, url_rules));
        let channel = channel(name, &mut section);
        let signing_secrets = section.required("signing_secrets");
        let signing_secrets = signing_secrets.and_then(|f| signing_secrets_of(&f));
        let headers = section.optional("headers");
        let headers = headers.map_or(Some(Vec::new()), |f| headers_of(f.section()?));
        let auth = section.optional("auth");
        let auth = auth.map_or(Some(None), |f| auth_of(f.section()?, url_rules).map(Some));
        let ca_file = section.optional("tls_ca_file");
        let ca_file = ca_file.map_or(Some(None), |f| f.filled_text().map(Some));
        let client_certificate = client_certificate(&mut section);
        let rules = rules(&mut section);
        let in_flight = section.optional("max_in_flight");
        let in_flight = in_flight.map_or(Some(8), |f| f.number(1..=1024));
        let rate_limit = section.optional("rate_limit");
        let rate_limit = rate_limit.map_or(Some(None), |f| rate_of(&f).map(Some));
        let max_body = section.optional("max_body");
        let max_body = max_body.map_or(Some(1 << 20), |f| f.size(BODIES));
        let format = format(&mut section);
        section.finish();
        Some(Self {
            url: url?,
            channel: channel?,
            signing_secrets: signing_secrets?,
            headers: headers?,
            auth: auth?,
            tls_ca_file: ca_file?.map(PathBuf::from),
            client_certificate: client_certificate?,
            rules: rules?,
            max_in_flight: in_flight?,
            rate_limit: rate_limit?,
            max_body: max_body?,
            format: format?,
            allow_private_network: allow_private?,
            allow_http: allow_http?,
        })
    }
}

/// The address, checked as far as possible without a network. Problems do not
/// quote it, since it may carry a token.
pub(super) fn url_of(key: &str, field: &Field, rules: UrlRules) -> Option<String> {
    let text = field.filled_text()?;
    let Ok(url) = url::Url::parse(text) else {
        field.error(format!(
            "`{key}` must be a whole address, as in `https://hooks.example.com/activate`"
        ));
        return None;
    };
    let mut sound = true;
    let mut refuse = |message: &str| {
        field.error(format!("`{key}` {message}"));
        sound = false;
    };
    match url.scheme() {
        "https" => {}
        "http" if rules.allow_http == Some(false) => {
            refuse("is not encrypted; use https, or set `allow_http: true`");
        }
        "http" => {}
        _ => refuse("must begin with https://"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        refuse("holds a login; put it under `auth`");
    }
    if url.fragment().is_some() {
        refuse("ends in a fragment (`#…`), which is never sent");
    }
    let host = url.host_str().unwrap_or_default();
    // A name is judged when it is dialled.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Some(never) = bare.parse().ok().and_then(never_dialled) {
        refuse(&format!("leads nowhere: {never}"));
    } else if rules.allow_private == Some(false) && is_private(host) {
        refuse(
            "leads to this machine or a private network; set `allow_private_network: true` if that is meant",
        );
    }
    sound.then(|| url.to_string())
}

/// The channel given, else the destination's own name.
fn channel(name: &str, section: &mut Section) -> Option<String> {
    let Some(field) = section.optional("channel") else {
        if name.len() > MAX_CHANNEL_BYTES {
            section.error("the name is too long to be the channel too; give `channel`");
            return None;
        }
        return Some(name.to_owned());
    };
    let text = field.filled_text()?;
    if text.len() > MAX_CHANNEL_BYTES || text.contains(char::is_control) {
        field.error(format!(
            "`channel` must be one line of at most {MAX_CHANNEL_BYTES} bytes"
        ));
        return None;
    }
    Some(text.to_owned())
}

fn signing_secrets_of(field: &Field) -> Option<Vec<Secret>> {
    let items = field.list()?;
    if items.is_empty() {
        field.error("`signing_secrets` needs at least one");
        return None;
    }
    let secrets: Vec<_> = items.iter().map(Secret::read).collect();
    secrets.into_iter().collect()
}

fn headers_of(mut section: Section) -> Option<Vec<(String, Secret)>> {
    let headers: Vec<_> = section
        .named()
        .into_iter()
        .map(|(name, field)| header(name, &field))
        .collect();
    headers.into_iter().collect()
}

fn header(name: &str, field: &Field) -> Option<(String, Secret)> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        field.error_at_key("this is not a header name".to_owned());
        return None;
    }
    let lower = name.to_ascii_lowercase();
    if OUR_HEADERS.contains(&lower.as_str()) || lower.starts_with(ENVELOPE_HEADERS) {
        let instead = if lower == "authorization" {
            "; use `auth`"
        } else {
            ""
        };
        field.error_at_key(format!("`{name}` is set by campaignd{instead}"));
        return None;
    }
    let secret = Secret::read(field)?;
    if secret
        .literal()
        .is_some_and(|value| !is_header_value(value.expose_secret()))
    {
        let path = field.path();
        field.error(format!(
            "`{path}` must be printable ASCII without a line break"
        ));
        return None;
    }
    Some((name.to_owned(), secret))
}

fn auth_of(mut section: Section, rules: UrlRules) -> Option<DestinationAuth> {
    let bearer = section.optional("bearer");
    let basic = section.optional("basic");
    let oauth2 = section.optional("oauth2");
    let auth = match (bearer, basic, oauth2) {
        (Some(field), None, None) => Secret::read(&field).map(DestinationAuth::Bearer),
        (None, Some(field), None) => basic_of(field.section()?),
        (None, None, Some(field)) => oauth2_of(field.section()?, rules),
        (None, None, None) => {
            section.error("`auth` must have one of `bearer`, `basic` and `oauth2`");
            None
        }
        _ => {
            section.error("`auth` must have exactly one of `bearer`, `basic` and `oauth2`");
            None
        }
    };
    section.finish();
    auth
}

fn basic_of(mut section: Section) -> Option<DestinationAuth> {
    let user = section.required("user");
    let password = section.required("password");
    section.finish();
    let user = user.and_then(|field| {
        let text = field.filled_text()?;
        if text.contains(':') {
            field.error("the user of `basic` cannot hold a colon");
            return None;
        }
        Some(text.to_owned())
    });
    let password = password.and_then(|field| Secret::read(&field));
    Some(DestinationAuth::Basic {
        user: user?,
        password: password?,
    })
}

fn rules(section: &mut Section) -> Option<Rules> {
    let timeout = section.optional("timeout");
    let timeout = timeout.map_or(Some(seconds(30)), |f| f.duration(TIMEOUTS));
    let retry = match section.optional("retry") {
        Some(field) => field.section().and_then(retry),
        None => Some((seconds(1), seconds(300), seconds(6 * 3600))),
    };
    let window_field = section.optional("dedupe_window");
    let window = window_field.as_ref().and_then(|f| f.duration(DELAYS));
    let on_field = section.optional("on_ambiguous");
    let on_ambiguous = on_field.as_ref().and_then(|field| {
        field.choice(&[("resend", OnAmbiguous::Resend), ("park", OnAmbiguous::Park)])
    });
    if let (Some(OnAmbiguous::Resend), Some(field), None) = (on_ambiguous, &on_field, &window_field)
    {
        field.error(
            "`on_ambiguous: resend` needs `dedupe_window`: how long the receiver promises to remember a webhook-id",
        );
    }
    let usual = if window.is_some() {
        OnAmbiguous::Resend
    } else {
        OnAmbiguous::Park
    };
    let not_processed = section.optional("not_processed");
    let not_processed = not_processed.map_or(Some(Vec::new()), |f| statuses(&f));
    let (retry_initial, retry_max, give_up_after) = retry?;
    Some(Rules {
        timeout: timeout?,
        retry_initial,
        retry_max,
        give_up_after,
        dedupe_window: window,
        on_ambiguous: on_ambiguous.unwrap_or(usual),
        not_processed: not_processed?,
    })
}

/// The first delay, the longest, and when a batch is given up.
fn retry(mut section: Section) -> Option<(Duration, Duration, Duration)> {
    let initial = section.optional("initial");
    let initial = initial.map_or(Some(seconds(1)), |f| f.duration(DELAYS));
    let max_field = section.optional("max");
    let max = max_field
        .as_ref()
        .map_or(Some(seconds(300)), |f| f.duration(DELAYS));
    let give_up = section.optional("give_up_after");
    let give_up = give_up.map_or(Some(seconds(6 * 3600)), |f| f.duration(DELAYS));
    if let (Some(initial), Some(max)) = (initial, max)
        && max < initial
    {
        section.error("`retry.max` must not be shorter than `retry.initial`");
    }
    section.finish();
    Some((initial?, max?, give_up?))
}

/// `50/s` or `600/min`.
fn rate_of(field: &Field) -> Option<Rate> {
    let text = field.filled_text()?;
    text.parse()
        .map_err(|error: BadRate| field.error(format!("`{}` {error}", field.path())))
        .ok()
}

/// Statuses that are no: 2xx cannot be one of them.
fn statuses(field: &Field) -> Option<Vec<u16>> {
    let items = field.list()?;
    let statuses: Vec<_> = items
        .iter()
        .map(|item| {
            item.number(400..=599)
                .and_then(|status| u16::try_from(status).ok())
        })
        .collect();
    statuses.into_iter().collect()
}

/// The body's form; JSON unless something else is said.
fn format(section: &mut Section) -> Option<Format> {
    let Some(field) = section.optional("format") else {
        return Some(Format::Json);
    };
    field.choice(&[
        ("json", Format::Json),
        ("ndjson", Format::Ndjson),
        ("form", Format::Form),
    ])
}
