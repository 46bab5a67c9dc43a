//! The part of the fleet that a gateway allows for one request.

use std::net::{IpAddr, SocketAddr};

/// Addresses among which the choice must stay. May be empty, and may name endpoints that are none of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset(Vec<(IpAddr, Option<u16>)>);

impl Subset {
    /// Reads entries: `ip:port`, or `ip` for any port of it, IPv6 in brackets where a port follows; an entry may be several
    /// with commas between them. What cannot be read allows nothing.
    pub fn read<'a>(entries: impl IntoIterator<Item = &'a str>) -> Self {
        let entries = entries.into_iter().flat_map(|entry| entry.split(','));
        let mut addresses: Vec<_> = entries.filter_map(|entry| address(entry.trim())).collect();
        addresses.sort_unstable();
        Self(addresses)
    }

    /// Whether the address is one of them.
    pub fn contains(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        [None, Some(address.port())].iter().any(|port| self.0.binary_search(&(ip, *port)).is_ok())
    }
}

fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_canonical(), Some(address.port())));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|ip| (ip.to_canonical(), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entries: &[&str], address: &str) -> bool {
        Subset::read(entries.iter().copied()).contains(address.parse().unwrap())
    }

    #[test]
    fn a_port_counts_where_one_is_given() {
        assert!(allows(&["10.0.0.1:8000"], "10.0.0.1:8000"));
        assert!(!allows(&["10.0.0.1:8000"], "10.0.0.1:8001"));
        assert!(allows(&["10.0.0.1"], "10.0.0.1:8001"));
        assert!(!allows(&["10.0.0.1"], "10.0.0.2:8001"));
    }

    #[test]
    fn lists_and_texts_with_commas_mean_the_same() {
        for entries in [&["10.0.0.1:1", "10.0.0.2:2"][..], &["10.0.0.1:1,10.0.0.2:2"], &[" 10.0.0.2:2 ,", "10.0.0.1:1"]]
        {
            assert!(allows(entries, "10.0.0.1:1") && allows(entries, "10.0.0.2:2"), "{entries:?}");
            assert!(!allows(entries, "10.0.0.2:1"), "{entries:?}");
        }
    }

    #[test]
    fn ipv6_is_read_with_and_without_brackets() {
        assert!(allows(&["[fd00::1]:8000"], "[fd00::1]:8000"));
        assert!(allows(&["[fd00::1]"], "[fd00::1]:9"));
        assert!(allows(&["fd00:0::1"], "[fd00::1]:9"));
        assert!(!allows(&["[fd00::1]:8000"], "[fd00::1]:8001"));
        assert!(allows(&["::ffff:10.0.0.1"], "10.0.0.1:8"));
    }

    #[test]
    fn nothing_and_nonsense_allow_nothing() {
        for entries in [&[][..], &[""], &["pod-1"], &["10.0.0.1:99999"], &["10.0.0.1:"]] {
            assert!(!allows(entries, "10.0.0.1:8000"), "{entries:?}");
        }
    }
}
