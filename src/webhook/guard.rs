//! Which addresses may be dialled: a destination must not reach into the
//! network the daemon stands in unless the operator says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address that is not dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address {address} is {what}; {advice}")]
pub struct AddressRefused {
    /// Which one.
    pub address: IpAddr,
    what: &'static str,
    advice: &'static str,
}

/// What an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The Internet.
    Public,
    /// A network of one's own: dialled where the operator admits it.
    Private(&'static str),
    /// Nothing that a webhook could be sent to, a way around the checks, or the
    /// door to a cloud's credentials.
    Never(&'static str),
}

/// Why `address` is not dialled, if it is not.
pub(crate) fn refusal(address: IpAddr, allow_private_network: bool) -> Option<AddressRefused> {
    let (what, advice) = match reach(address) {
        Reach::Public => return None,
        Reach::Private(_) if allow_private_network => return None,
        Reach::Private(what) => (
            what,
            "set `allow_private_network: true` if it is meant to be reached",
        ),
        Reach::Never(what) => (what, "it is never dialled"),
    };
    Some(AddressRefused {
        address,
        what,
        advice,
    })
}

/// Why `address` is dialled for no operator, if it is not.
pub fn never_dialled(address: IpAddr) -> Option<AddressRefused> {
    refusal(address, true)
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

const LINK_LOCAL: &str = "link-local";
const METADATA: &str = "a cloud's metadata service";

/// The addresses at which clouds hand out credentials, besides link-local.
const METADATA_V4: [[u8; 4]; 2] = [[168, 63, 129, 16], [100, 100, 100, 200]];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

fn reach_v4(address: Ipv4Addr) -> Reach {
    use Reach::{Never, Private, Public};
    if METADATA_V4.contains(&address.octets()) {
        return Never(METADATA);
    }
    match address.octets() {
        [0, ..] => Never("unspecified"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Private("private"),
        [100, 64..=127, ..] => Private("shared by a carrier (private)"),
        [127, ..] => Private("loopback"),
        [169, 254, ..] => Never(LINK_LOCAL),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Never("for documentation"),
        [192, 0, 0, _] => Never("reserved for protocols"),
        [192, 88, 99, _] => Never("a 6to4 relay"),
        [198, 18..=19, ..] => Never("for benchmarking"),
        [224..=239, ..] => Never("multicast"),
        [240..=255, ..] => Never("reserved"),
        _ => Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    use Reach::{Never, Private, Public};
    if address == METADATA_V6 {
        return Never(METADATA);
    }
    let s = address.segments();
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Never("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Private("loopback"),
        [0, 0, 0, 0, 0, 0, ..] => Never("an IPv4-compatible address"),
        // The system dials the IPv4 address itself, which an honest name
        // resolves to.
        [0, 0, 0, 0, 0, 0xffff, high, low] => match reach_v4(v4(high, low)) {
            Public => Private("an IPv4-mapped address"),
            refused => refused,
        },
        // A network without IPv4 of its own reaches all of it through here.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => reach_v4(v4(high, low)),
        // A translator of one's own. Where it keeps the IPv4 address is its
        // own affair; at the end, the usual place, no credentials are fetched.
        [0x64, 0xff9b, 1, .., high, low] => match reach_v4(v4(high, low)) {
            Never(what @ (LINK_LOCAL | METADATA)) => Never(what),
            _ => Private("a local NAT64 address"),
        },
        [0x2001, 0, ..] => Never("a Teredo address"),
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Never("for documentation"),
        [0x2001, 0..=0x01ff, ..] => Never("reserved for protocols"),
        [0x2002, ..] => Never("a 6to4 address"),
        [0xfc00..=0xfdff, ..] => Private("private"),
        [0xfe80..=0xfebf, ..] => Never(LINK_LOCAL),
        [0xfec0..=0xfeff, ..] => Private("site-local (private)"),
        [0xff00..=0xffff, ..] => Never("multicast"),
        [0x2000..=0x3fff, ..] => Public,
        _ => Never("reserved"),
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(addresses: &[&str], refused: bool, refused_where_private_is_allowed: bool) {
        for text in addresses {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(refusal(address, false).is_some(), refused, "{text}");
            assert_eq!(
                refusal(address, true).is_some(),
                refused_where_private_is_allowed,
                "{text}, private networks allowed"
            );
        }
    }

    #[test]
    fn public_addresses_are_dialled() {
        check(
            &[
                "8.8.8.8",
                "1.1.1.1",
                "172.15.0.1",
                "172.32.0.1",
                "100.63.255.255",
                "100.128.0.0",
                "192.0.1.1",
                "198.17.0.1",
                "198.20.0.1",
                "223.255.255.255",
                "2606:4700::1111",
                "2001:200::1",
                "3fff:1000::1",
                "2001:4860:4860::8888",
                "64:ff9b::8.8.8.8",
            ],
            false,
            false,
        );
    }

    #[test]
    fn private_addresses_are_dialled_only_where_the_operator_admits_them() {
        check(
            &[
                "10.0.0.1",
                "127.0.0.1",
                "127.255.255.254",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.1.1",
                "100.64.0.1",
                "100.127.255.255",
                "::1",
                "::ffff:127.0.0.1",
                "::ffff:10.0.0.1",
                "::ffff:8.8.8.8",
                "64:ff9b::10.0.0.1",
                "64:ff9b:1::1",
                "fc00::1",
                "fd12:3456::1",
                "fec0::1",
            ],
            true,
            false,
        );
    }

    #[test]
    fn some_addresses_are_never_dialled() {
        check(
            &[
                "0.0.0.0",
                "0.1.2.3",
                "169.254.169.254",
                "169.254.0.1",
                "168.63.129.16",
                "100.100.100.200",
                "192.0.0.8",
                "192.0.2.1",
                "192.88.99.1",
                "198.18.0.1",
                "198.19.255.255",
                "198.51.100.1",
                "203.0.113.9",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.1",
                "255.255.255.255",
                "::",
                "::8.8.8.8",
                "::7f00:1",
                "::169.254.169.254",
                "::ffff:169.254.169.254",
                "::ffff:0.0.0.0",
                "::ffff:192.0.2.1",
                "64:ff9b::169.254.169.254",
                "64:ff9b::198.18.0.1",
                "64:ff9b:1::169.254.169.254",
                "64:ff9b:1::168.63.129.16",
                "2001::f7f7:f7f7",
                "2001:0:4136:e378:8000:63bf:5601:5601",
                "2001:2::1",
                "2001:10::1",
                "2001:20::1",
                "2001:1ff:ffff::1",
                "2001:db8::1",
                "2002:808:808::1",
                "2002:7f00:1::1",
                "2002:a9fe:a9fe::1",
                "3fff::1",
                "3fff:fff::1",
                "fd00:ec2::254",
                "fe80::1",
                "ff02::1",
                "100::1",
                "100:0:0:1::1",
                "febf::1",
                "fe00::1",
                "4000::1",
                "5f00::1",
            ],
            true,
            true,
        );
    }

    #[test]
    fn a_refusal_names_the_address_and_what_to_do() {
        let refused = refusal("127.0.0.1".parse().unwrap(), false).unwrap();
        assert_eq!(
            refused.to_string(),
            "the address 127.0.0.1 is loopback; set `allow_private_network: true` if it is meant to be reached"
        );
    }
}
