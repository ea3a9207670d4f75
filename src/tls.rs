//! What another side shows of itself in TLS, for a person to read. Whether it
//! is trusted is not judged here: that is for the connection that is used.

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a person waits to be told.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of a name in a certificate is shown, in characters: they are the
/// other side's words.
const MAX_NAME: usize = 128;

/// What the other side of a connection shows of itself in TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlsReport {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// Whom its certificate names.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// Shakes hands with `host` over what `connecting` comes to, says nothing
/// more, and returns what it showed; an error says what was in the way. Five
/// seconds at most.
pub async fn look(
    host: &str,
    connecting: impl Future<Output = Result<TcpStream, String>>,
) -> Result<TlsReport, String> {
    let looking = async { shake_hands(host, connecting.await?).await };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(shown) => shown,
        Err(_) => Err(format!("no TLS handshake within {PATIENCE:?}")),
    }
}

async fn shake_hands(host: &str, stream: TcpStream) -> Result<TlsReport, String> {
    let failed = |_| "the TLS handshake failed".to_owned();
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let name =
        ServerName::try_from(name.to_owned()).map_err(|_| "its host is no name".to_owned())?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Onlooker(provider)))
        .with_no_client_auth();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|_| "the TLS handshake failed".to_owned())?;
    let (_, session) = stream.get_ref();
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        _ => "unknown",
    };
    let own = session.peer_certificates().and_then(<[_]>::first);
    let own = own.ok_or_else(|| "it showed no certificate".to_owned())?;
    let (_, parsed) = x509_parser::parse_x509_certificate(own)
        .map_err(|_| "its certificate cannot be read".to_owned())?;
    let expires = parsed.validity().not_after.timestamp();
    Ok(TlsReport {
        version,
        subject: clean(&parsed.subject().to_string()),
        issuer: clean(&parsed.issuer().to_string()),
        expires: Timestamp::from_second(expires).unwrap_or(Timestamp::MAX),
    })
}

fn clean(name: &str) -> String {
    let shown = name.chars().filter(|c| !c.is_control());
    shown.take(MAX_NAME).collect()
}

/// Looks at a certificate and trusts nobody for it: nothing is sent over the
/// connection that it is used for. That the other side holds its key is
/// checked all the same.
#[derive(Debug)]
struct Onlooker(Arc<CryptoProvider>);

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
