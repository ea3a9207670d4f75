//! Why an attempt brought no answer, in our words: the client's own errors
//! quote addresses, queries and what the other side said.

use super::body::BodyWithdrawn;
use super::guard::AddressRefused;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// Why nothing left: something went wrong on the way to the connection.
pub(super) fn why_not_sent(error: &reqwest::Error, host: &str) -> String {
    for cause in causes(error) {
        if let Some(refused) = cause.downcast_ref::<AddressRefused>() {
            return format!("{host} is not dialled: {refused}");
        }
        if cause.is::<BodyWithdrawn>() {
            return format!("this process was stopped before it could send to {host}");
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return format!("no TLS connection to {host}: {}", what_tls_says(tls));
        }
    }
    if error.is_timeout() {
        return format!("no connection to {host} in time");
    }
    if error.is_dns() {
        return format!("the name of {host} could not be resolved");
    }
    why_not_connected(io_kind(error), host)
}

/// Why there is no connection to `host`, by what the system says.
pub(super) fn why_not_connected(kind: Option<ErrorKind>, host: &str) -> String {
    match kind {
        Some(ErrorKind::ConnectionRefused) => format!("{host} refuses connections"),
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
            format!("{host} cannot be reached from here")
        }
        Some(ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
            format!("{host} closed the connection before a request could be sent")
        }
        _ => format!("no connection to {host}"),
    }
}

/// Why it is not known what became of the request.
pub(super) fn why_ambiguous(error: &reqwest::Error, host: &str, timeout: Duration) -> String {
    if error.is_timeout() {
        let timeout = humantime::format_duration(timeout);
        return format!("no answer from {host} within {timeout}");
    }
    match io_kind(error) {
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted) => {
            format!("{host} reset the connection before it answered")
        }
        _ => format!("{host} closed the connection or sent something that is not an HTTP answer"),
    }
}

/// Why the other side refused the handshake after our half of it: in TLS 1.3
/// that is heard when the request has left already. A server that refuses a
/// client's certificate hands nothing of the connection on to anybody, so this
/// is a definite no.
pub(super) fn handshake_refusal(error: &reqwest::Error, host: &str) -> Option<String> {
    let mut said = causes(error).filter_map(|cause| cause.downcast_ref::<rustls::Error>());
    let advice = said.find_map(about_our_certificate)?;
    Some(format!("no TLS connection to {host}: {advice}"))
}

/// What an alert says of the certificate we show, or do not.
fn about_our_certificate(error: &rustls::Error) -> Option<&'static str> {
    use rustls::AlertDescription as A;
    let rustls::Error::AlertReceived(alert) = error else {
        return None;
    };
    match alert {
        A::CertificateRequired => {
            Some("it wants a client certificate; set `client_cert_file` and `client_key_file`")
        }
        A::UnknownCA
        | A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown => {
            Some("it refuses our client certificate; ask its owner which one it takes")
        }
        _ => None,
    }
}

fn what_tls_says(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as C;
    let certificate = match error {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        rustls::Error::InvalidMessage(_) => {
            return "what answers there does not speak TLS; check host and port";
        }
        rustls::Error::PeerIncompatible(_) => {
            return "we have no version or cipher of TLS in common";
        }
        other => return about_our_certificate(other).unwrap_or("the handshake failed"),
    };
    match certificate {
        C::Expired | C::ExpiredContext { .. } => {
            "its certificate has expired; its owner must renew it"
        }
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "its certificate is not valid yet; check this machine's clock"
        }
        C::Revoked => "its certificate has been revoked",
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            "its certificate is for another name; check the host in `url`"
        }
        C::UnknownIssuer | C::BadSignature => {
            "its certificate is signed by nobody we trust; a private root goes into `tls_ca_file`"
        }
        _ => "its certificate is not sound",
    }
}

fn io_kind(error: &reqwest::Error) -> Option<ErrorKind> {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind)
        .find(|kind| *kind != ErrorKind::Other)
}

/// What an error comes from, down to the root. An I/O error's `source` passes
/// over the error it wraps, which is the one that tells.
fn causes<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = Cause<'a>> + use<'a> {
    std::iter::successors(error.source(), |&cause: &Cause<'a>| {
        match cause.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as Cause<'a>),
            None => cause.source(),
        }
    })
}

type Cause<'a> = &'a (dyn Error + 'static);
