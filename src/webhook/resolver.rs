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
}
