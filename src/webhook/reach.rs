//! Whether a destination can be dialled, without sending it anything.

use super::failure::why_not_connected;
use super::guard::{AddressRefused, refusal};
use super::resolver::admit;
use reqwest::Url;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};

/// How long a person waits to be told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Resolves the host of `url` behind the address guard and dials it. An error
/// names host and port, and says what is in the way.
pub(super) async fn reach(url: &Url, allow_private_network: bool) -> Result<(), String> {
    connected(url, allow_private_network).await.map(drop)
}

/// The same, and returns the connection.
pub(super) async fn connected(url: &Url, allow_private_network: bool) -> Result<TcpStream, String> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let shown = format!("{host}:{port}");
    let dialling = dial(host, port, &shown, allow_private_network);
    match tokio::time::timeout(PATIENCE, dialling).await {
        Ok(dialled) => dialled,
        Err(_) => Err(format!("no connection to {shown} within {PATIENCE:?}")),
    }
}

/// An address of a destination's host, and why it is not dialled, if it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedAddress {
    /// The address.
    pub address: IpAddr,
    /// What the guard has against it.
    pub refused: Option<AddressRefused>,
}

/// The addresses of the host of `url` now, each judged; dials none. An error
/// names host and port.
pub(super) async fn judged(
    url: &Url,
    allow_private_network: bool,
) -> Result<Vec<JudgedAddress>, String> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let looking = tokio::time::timeout(PATIENCE, lookup_host((name, port)));
    let Ok(Ok(found)) = looking.await else {
        return Err(format!("the name of {host}:{port} could not be resolved"));
    };
    let judge = |address| JudgedAddress {
        address,
        refused: refusal(address, allow_private_network),
    };
    Ok(found.map(|socket| judge(socket.ip())).collect())
}

async fn dial(
    host: &str,
    port: u16,
    shown: &str,
    allow_private_network: bool,
) -> Result<TcpStream, String> {
    // A URL writes an IPv6 address in brackets, the resolver takes it bare.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let found = lookup_host((name, port))
        .await
        .map_err(|_| format!("the name of {shown} could not be resolved"))?;
    let addresses = admit(found, allow_private_network)
        .map_err(|refused| format!("{shown} is not dialled: {refused}"))?;
    let connecting = TcpStream::connect(addresses.as_slice()).await;
    connecting.map_err(|error| why_not_connected(Some(error.kind()), shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn reached(url: &str, allow_private_network: bool) -> Result<(), String> {
        reach(&Url::parse(url).unwrap(), allow_private_network).await
    }

    #[tokio::test]
    async fn a_listening_host_is_reached_until_it_is_gone() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}/secret-path");
        assert_eq!(reached(&url, true).await, Ok(()));
        drop(listener);
        assert_eq!(
            reached(&url, true).await,
            Err(format!("127.0.0.1:{port} refuses connections"))
        );
    }

    #[tokio::test]
    async fn an_address_behind_the_guard_is_not_dialled() {
        let refused = reached("https://localhost/secret-path", false).await;
        let refused = refused.unwrap_err();
        assert!(
            refused.starts_with("localhost:443 is not dialled: the address"),
            "{refused}"
        );
        assert!(refused.contains("allow_private_network"), "{refused}");
    }

    #[tokio::test]
    async fn a_name_that_is_none_says_so() {
        assert_eq!(
            reached("https://nobody.invalid/", true).await,
            Err("the name of nobody.invalid:443 could not be resolved".to_owned())
        );
    }
}
