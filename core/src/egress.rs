//! Which addresses Freshet may dial: one policy for every host that a user can name.
//!
//! A name is looked up first, and the addresses that come of it are judged, each in its canonical form: an IPv4 address
//! in IPv6's clothes is the IPv4 address.
//!
//! | addresses | `private` | `public` |
//! |---|---|---|
//! | loopback, link-local and metadata services, unspecified, multicast, reserved, documentation, translation prefixes | no | no |
//! | private networks (RFC 1918, RFC 6598, RFC 4193) | yes | no |
//! | everything else | yes | yes |
//!
//! What `egress_allow` names is allowed whatever the table says.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::error::{Code, Error, Result};

/// Never dialled unless named: IANA's special-purpose registries, and what the clouds keep behind link-local addresses.
const SPECIAL: &[&str] = &[
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fd00:ec2::/32",
    "fe80::/10",
    "ff00::/8",
];

/// Dialled where the installation stands among them.
const PRIVATE: &[&str] = &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// Which networks are open besides the public ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Private networks too: brokers and databases live there.
    Private,
    /// None: for an installation that strangers use.
    Public,
}

impl FromStr for Reach {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "private" => Ok(Self::Private),
            "public" => Ok(Self::Public),
            _ => Err("must be `private` or `public`"),
        }
    }
}

/// The policy.
#[derive(Debug, Clone)]
pub struct Egress {
    reach: Reach,
    allowed: Vec<IpNet>,
    special: Vec<IpNet>,
    private: Vec<IpNet>,
}

impl Egress {
    /// Reads the policy: `allow` holds networks or addresses, with commas.
    ///
    /// # Errors
    /// `platform.settings`, naming what does not read.
    pub fn new(reach: Reach, allow: &str) -> Result<Self> {
        let entries = allow.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let network = |entry: &str| {
            let one = || entry.parse::<IpAddr>().ok().map(IpNet::from);
            entry.parse::<IpNet>().ok().or_else(one).ok_or_else(|| {
                Error::new(
                    Code::Settings,
                    format!("FRESHET_EGRESS_ALLOW: `{entry}` is neither a network nor an address"),
                )
            })
        };
        let table = |table: &[&str]| table.iter().filter_map(|text| text.parse().ok()).collect();
        Ok(Self {
            reach,
            allowed: entries.map(network).collect::<Result<_>>()?,
            special: table(SPECIAL),
            private: table(PRIVATE),
        })
    }

    /// Judges an address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        if within(&self.allowed) {
            return true;
        }
        !within(&self.special) && (self.reach == Reach::Private || !within(&self.private))
    }

    /// Judges every address that a host has: one that is not allowed is enough to refuse it, for a name that has both an
    /// inner and an outer address is asked for the inner one.
    ///
    /// # Errors
    /// `platform.egress_blocked`, with the host's name and not its address.
    pub fn check(&self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Result<()> {
        if addresses.into_iter().all(|address| self.allows(address)) {
            return Ok(());
        }
        Err(Error::new(Code::EgressBlocked, format!("`{host}` has an address that this installation does not dial")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(reach: Reach, allow: &str, address: &str) -> bool {
        Egress::new(reach, allow).unwrap().allows(address.parse().unwrap())
    }

    #[test]
    fn what_is_inside_is_not_dialled_in_whatever_clothes() {
        for address in [
            "127.0.0.1",
            "127.8.9.10",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "5f00::1",
        ] {
            assert!(!allows(Reach::Private, "", address), "{address}");
        }
    }

    #[test]
    fn private_networks_are_open_where_the_installation_says_so() {
        for address in ["10.0.0.5", "172.31.0.1", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.0.0.5"] {
            assert!(allows(Reach::Private, "", address), "{address}");
            assert!(!allows(Reach::Public, "", address), "{address}");
        }
        for address in ["8.8.8.8", "172.32.0.1", "2600::1"] {
            assert!(allows(Reach::Public, "", address), "{address}");
        }
    }

    #[test]
    fn what_is_named_is_allowed_and_nothing_beside_it() {
        let allow = "127.0.0.0/8, 10.1.2.3";
        assert!(allows(Reach::Public, allow, "127.0.0.1") && allows(Reach::Public, allow, "10.1.2.3"));
        assert!(!allows(Reach::Public, allow, "10.1.2.4") && !allows(Reach::Public, allow, "::1"));
        assert!(Egress::new(Reach::Public, "localhost").unwrap_err().message.contains("localhost"));
    }

    #[test]
    fn one_forbidden_address_of_a_name_refuses_it() {
        let egress = Egress::new(Reach::Public, "").unwrap();
        let both = ["8.8.8.8", "10.0.0.1"].map(|address| address.parse().unwrap());

        let refused = egress.check("two-faced.example", both).unwrap_err();

        assert_eq!(refused.code, Code::EgressBlocked);
        assert!(refused.message.contains("two-faced.example") && !refused.message.contains("10.0.0.1"));
    }
}
