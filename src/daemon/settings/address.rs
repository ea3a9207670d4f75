//! What can be said of a host without asking the network.

use std::net::{IpAddr, Ipv4Addr};

/// Whether `host` is this machine: `localhost` or a loopback address.
pub(super) fn is_loopback(host: &str) -> bool {
    is_localhost(host) || address(host).is_some_and(|ip| ip.is_loopback())
}

/// Whether `host` is a literal address, or name, of this machine or of a
/// private network. What a name leads to is judged when it is dialled.
pub(super) fn is_private(host: &str) -> bool {
    is_localhost(host)
        || address(host).is_some_and(|ip| match ip {
            IpAddr::V4(v4) => is_private_v4(v4),
            IpAddr::V6(v6) => {
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_unique_local()
                    || v6.is_unicast_link_local()
            }
        })
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    let carrier_grade = first == 100 && (64..128).contains(&second);
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || first == 0 || carrier_grade
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// The address a host is written as; an IPv4 address in IPv6 clothes is one.
fn address(host: &str) -> Option<IpAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_recognised_in_every_spelling() {
        for private in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "[::1]",
            "::",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_private(private), "{private}");
        }
        for public in [
            "example.com",
            "8.8.8.8",
            "100.128.0.1",
            "2606:4700::1",
            "172.32.0.1",
        ] {
            assert!(!is_private(public), "{public}");
        }
        assert!(is_loopback("127.3.2.1") && !is_loopback("10.0.0.1"));
    }
}
