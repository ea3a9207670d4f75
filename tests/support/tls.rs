//! Certificates, good and bad, and a receiver's TLS side before a plain one.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// A root of our own.
pub struct Authority {
    pub cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        // Two roots of one name would be taken for each other.
        let name = format!("root {}", uuid::Uuid::new_v4());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { cert, issuer }
    }

    /// A certificate for `name`, good to the end of `until_year`.
    pub fn sign(&self, name: &str, until_year: i32) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(until_year, 12, 31);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Pair {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A certificate for `name` that nobody else has signed.
pub fn self_signed(name: &str) -> Pair {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    Pair {
        cert: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// What ends TLS and shows `own`; asks for a client's certificate where
/// `clients` is given.
pub fn acceptor(own: &Pair, clients: Option<&Authority>) -> TlsAcceptor {
    let provider = Arc::new(default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(authority.cert.as_bytes());
            roots.add(root.unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let cert = CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let config = config.with_single_cert(vec![cert], key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Ends TLS and hands what is inside to a plain receiver.
pub struct TlsFront {
    address: SocketAddr,
    end: CancellationToken,
}

impl TlsFront {
    /// Shows `own`; asks for a client's certificate where `clients` is given.
    pub async fn before(plain: SocketAddr, own: &Pair, clients: Option<&Authority>) -> Self {
        let acceptor = acceptor(own, clients);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = Self {
            address: listener.local_addr().unwrap(),
            end: CancellationToken::new(),
        };
        let (tasks, end) = (TaskTracker::new(), front.end.clone());
        tasks.clone().spawn(async move {
            let accepting = async {
                while let Ok((stream, _)) = listener.accept().await {
                    let (acceptor, end) = (acceptor.clone(), end.clone());
                    tasks.spawn(async move {
                        end.run_until_cancelled(forward(acceptor, stream, plain))
                            .await;
                    });
                }
            };
            end.run_until_cancelled(accepting).await;
        });
        front
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// What goes wrong here, the client is to notice.
async fn forward(acceptor: TlsAcceptor, stream: TcpStream, plain: SocketAddr) {
    let Ok(mut inside) = acceptor.accept(stream).await else {
        return;
    };
    let Ok(mut outside) = TcpStream::connect(plain).await else {
        return;
    };
    drop(tokio::io::copy_bidirectional(&mut inside, &mut outside).await);
}
