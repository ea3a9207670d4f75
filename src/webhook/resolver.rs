//! Names to addresses, less those that may not be dialled. What is judged
//! here is what is dialled: nothing looks the name up a second time.

use super::guard::{AddressRefused, refusal};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::SocketAddr;

/// A resolver behind the address guard.
pub(super) struct GuardedResolver<L = SystemLookup> {
    allow_private_network: bool,
    lookup: L,
}

/// What turns a name into addresses, good and bad.
pub(super) trait Lookup: Clone + Send + Sync + 'static {
    /// The addresses of `name` now; their ports mean nothing.
    fn addresses(
        &self,
        name: Name,
    ) -> impl Future<Output = std::io::Result<Vec<SocketAddr>>> + Send;
}

/// The system's way.
#[derive(Debug, Clone, Copy)]
pub(super) struct SystemLookup;

impl Lookup for SystemLookup {
    async fn addresses(&self, name: Name) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect())
    }
}

impl GuardedResolver {
    /// The system's resolver behind the guard.
    pub(super) fn new(allow_private_network: bool) -> Self {
        Self {
            allow_private_network,
            lookup: SystemLookup,
        }
    }
}

impl<L: Lookup> Resolve for GuardedResolver<L> {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private_network = self.allow_private_network;
        let lookup = self.lookup.clone();
        Box::pin(async move {
            let found = lookup.addresses(name).await?;
            let admitted = admit(found.into_iter(), allow_private_network)?;
            let addresses: Addrs = Box::new(admitted.into_iter());
            Ok(addresses)
        })
    }
}

/// The addresses that may be dialled; the first refusal where there are none.
pub(super) fn admit(
    found: impl Iterator<Item = SocketAddr>,
    allow_private_network: bool,
) -> Result<Vec<SocketAddr>, AddressRefused> {
    let mut first_refusal = None;
    let mut admitted = Vec::new();
    for address in found {
        match refusal(address.ip(), allow_private_network) {
            None => admitted.push(address),
            Some(refused) => {
                first_refusal.get_or_insert(refused);
            }
        }
    }
    match first_refusal {
        Some(refused) if admitted.is_empty() => Err(refused),
        _ => Ok(admitted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::sync::{Arc, Mutex};
    use tokio::net::TcpListener;

    fn admitted(addresses: &[&str]) -> Result<usize, AddressRefused> {
        let found = addresses
            .iter()
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0));
        admit(found, false).map(|addresses| addresses.len())
    }

    #[test]
    fn a_name_keeps_only_the_addresses_that_may_be_dialled() {
        assert_eq!(admitted(&["8.8.8.8", "127.0.0.1", "8.8.4.4"]).unwrap(), 2);
    }

    #[test]
    fn a_name_with_private_addresses_alone_is_refused() {
        let refused = admitted(&["10.0.0.7", "127.0.0.1"]).unwrap_err();
        assert_eq!(refused.address.to_string(), "10.0.0.7");
    }

    /// Answers with one address after another; the last one stays.
    #[derive(Clone)]
    struct Flipping(Arc<Mutex<Vec<IpAddr>>>);

    impl Flipping {
        fn of(addresses: &[&str]) -> Self {
            let addresses = addresses.iter().rev().map(|ip| ip.parse().unwrap());
            Self(Arc::new(Mutex::new(addresses.collect())))
        }
    }

    impl Lookup for Flipping {
        async fn addresses(&self, _: Name) -> std::io::Result<Vec<SocketAddr>> {
            let mut left = self.0.lock().unwrap();
            let address = *left.last().unwrap();
            if left.len() > 1 {
                left.pop();
            }
            Ok(vec![SocketAddr::new(address, 0)])
        }
    }

    async fn resolved(resolver: &GuardedResolver<Flipping>) -> Option<IpAddr> {
        let name = "flips.example".parse().unwrap();
        let found = resolver.resolve(name).await.ok()?;
        found.map(|address| address.ip()).next()
    }

    #[tokio::test]
    async fn a_name_that_flips_after_a_check_is_refused_when_it_is_dialled() {
        let resolver = GuardedResolver {
            allow_private_network: false,
            lookup: Flipping::of(&["8.8.8.8", "127.0.0.1", "169.254.169.254", "8.8.4.4"]),
        };
        assert_eq!(resolved(&resolver).await, "8.8.8.8".parse().ok());
        assert_eq!(resolved(&resolver).await, None);
        assert_eq!(resolved(&resolver).await, None);
        assert_eq!(resolved(&resolver).await, "8.8.4.4".parse().ok());
    }

    #[tokio::test]
    async fn each_dial_of_the_client_asks_the_guard() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let resolver = GuardedResolver {
            allow_private_network: true,
            lookup: Flipping::of(&["127.0.0.1", "169.254.169.254"]),
        };
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .dns_resolver(resolver)
            .build()
            .unwrap();
        let url = format!("http://flips.example:{port}/");
        let (first, connection) = tokio::join!(client.get(&url).send(), async {
            // Closed at once: the next request dials anew.
            listener.accept().await.map(drop)
        });
        assert!(first.is_err() && connection.is_ok());
        let second = client.get(&url).send().await.unwrap_err();
        let mut causes = std::iter::successors(std::error::Error::source(&second), |e| e.source());
        assert!(causes.any(|cause| cause.downcast_ref::<AddressRefused>().is_some()));
    }
}
