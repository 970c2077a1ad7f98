//! Which addresses Freshet may dial: one policy for every host that a user can name.
//!
//! ~~~text
//! host ─► Lookup ─► every address judged ─► the judged address is dialled, and the name not looked up again
//! ~~~
//!
//! An address is judged in its canonical form: an IPv4 address in IPv6's clothes is the IPv4 address.
//!
//! | addresses | `private` | `public` |
//! |---|---|---|
//! | loopback, link-local and metadata services, unspecified, multicast, reserved, documentation, translation prefixes | no | no |
//! | the host of Freshet's own database | no | no |
//! | private networks (RFC 1918, RFC 6598, RFC 4193) | yes | no |
//! | everything else | yes | yes |
//!
//! What `egress_allow` names is allowed whatever the table says. A policy is a value: whoever opens a connection says
//! which one it goes by. An organization may have one of its own, with a reach and a list in place of the installation's;
//! what the installation's list does not open of this machine and of Freshet's own database, no other list opens.

pub mod http;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::future;
use ipnet::IpNet;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Code, Error, Result};
use crate::settings::{Reach, Secret, Settings};

/// How long to wait for a name's addresses, and then for each address to answer.
const DIAL: Duration = Duration::from_secs(10);

/// Never dialled unless named: IANA's special-purpose registries, and what the clouds keep for their machines alone, which
/// is not all link-local: Alibaba's, Azure's, Google's and Amazon's.
const SPECIAL: &[&str] = &[
    "0.0.0.0/8",
    "100.100.100.200/32",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fd00:ec2::/32",
    "fd20:ce::254/128",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Dialled where the installation stands among them.
const PRIVATE: &[&str] = &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// Where names' addresses come from; a test puts another in place of the system's.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// The addresses of a host: of a name, or of an address in any form that the system reads.
    ///
    /// # Errors
    /// What the resolver says.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver, and with it `/etc/hosts`.
struct System;

#[async_trait]
impl Lookup for System {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// The policy.
pub struct Egress {
    reach: Reach,
    allowed: Vec<IpNet>,
    /// What the installation's list opens: without it, this machine and Freshet's own database stay shut.
    installations: Vec<IpNet>,
    special: Vec<IpNet>,
    private: Vec<IpNet>,
    own: Arc<Own>,
    lookup: Arc<dyn Lookup>,
    /// The organizations' policies that were asked for, by reach and list: one of the same words is the same value.
    others: Mutex<BTreeMap<(&'static str, String), Arc<Egress>>>,
}

/// Policies of organizations that are kept, at most; past it they are made anew.
const OTHERS_MAX: usize = 1_000;

/// Freshet's own database: its hosts, and their addresses when they were last looked up.
#[derive(Default)]
struct Own {
    hosts: Vec<String>,
    addresses: RwLock<Vec<IpAddr>>,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told())
    }
}

impl Egress {
    /// Reads the policy: `allow` holds networks or addresses, with commas.
    ///
    /// # Errors
    /// `platform.settings`, naming what does not read.
    pub fn new(reach: Reach, allow: &str) -> Result<Self> {
        let allowed =
            networks(allow).map_err(|told| Error::new(Code::Settings, format!("FRESHET_EGRESS_ALLOW: {told}")))?;
        let table = |table: &[&str]| table.iter().filter_map(|text| text.parse().ok()).collect();
        Ok(Self {
            reach,
            installations: allowed.clone(),
            allowed,
            special: table(SPECIAL),
            private: table(PRIVATE),
            own: Arc::default(),
            lookup: Arc::new(System),
            others: Mutex::default(),
        })
    }

    /// The policy of an organization that has one of its own, beside this one, the installation's.
    ///
    /// # Errors
    /// `request.invalid`, naming what of `allow` does not read.
    pub fn of_organization(&self, reach: Reach, allow: &str) -> Result<Arc<Self>> {
        let allowed = networks(allow).map_err(|told| Error::invalid("/allow", told))?;
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.len() >= OTHERS_MAX {
            others.clear();
        }
        let other = others.entry((reach.as_str(), allow.to_owned())).or_insert_with(|| {
            Arc::new(Self {
                reach,
                allowed,
                installations: self.installations.clone(),
                special: self.special.clone(),
                private: self.private.clone(),
                own: Arc::clone(&self.own),
                lookup: Arc::clone(&self.lookup),
                others: Mutex::default(),
            })
        });
        Ok(Arc::clone(other))
    }

    /// Which networks are open besides those that are named.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// The installation's policy.
    ///
    /// # Errors
    /// As [`Egress::new`].
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        let mut egress = Self::new(settings.egress_reach, &settings.egress_allow)?;
        let databases = [&settings.database_url, &settings.owner_database_url];
        let mut hosts: Vec<_> = databases.into_iter().filter_map(database_host).collect();
        hosts.dedup();
        egress.own = Arc::new(Own { hosts, addresses: RwLock::default() });
        Ok(egress)
    }

    /// The same policy with names looked up elsewhere.
    #[must_use]
    pub fn with_lookup(self, lookup: impl Lookup + 'static) -> Self {
        Self { lookup: Arc::new(lookup), ..self }
    }

    /// The policy in a sentence, for `freshet doctor`.
    #[must_use]
    pub fn told(&self) -> String {
        let reach = match self.reach {
            Reach::Private => "public and private networks",
            Reach::Public => "public networks",
        };
        let allowed = self.allowed.iter().map(|network| format!(", {network}")).collect::<String>();
        format!("workers dial {reach}{allowed} for users; else no loopback, and not the host of Freshet's own database")
    }

    /// Judges an address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        let is_own = self.own.addresses.read().unwrap_or_else(PoisonError::into_inner).contains(&address);
        if is_own || address.is_loopback() || address.is_unspecified() {
            return within(&self.allowed) && within(&self.installations);
        }
        let is_open = !within(&self.special) && (self.reach == Reach::Private || !within(&self.private));
        is_open || within(&self.allowed)
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

    /// The addresses of a host, each of them judged. Dial these: the name may have others by then.
    ///
    /// # Errors
    /// `platform.egress_blocked`, or `unreachable` for a name without an address.
    pub async fn addresses(&self, host: &str, port: u16, unreachable: Code) -> Result<Vec<SocketAddr>> {
        let none = || Error::new(unreachable, format!("{host}:{port} does not resolve to an address"));
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let found = timeout(DIAL, async { future::join(self.lookup.lookup(host), self.look_own_up()).await.0 });
        let found = found.await.map_err(late).flatten().map_err(|error| none().caused_by(error))?;
        self.check(host, found.iter().copied())?;
        if found.is_empty() { Err(none()) } else { Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()) }
    }

    /// A connection to a host, at the first of its addresses that answers.
    ///
    /// # Errors
    /// As [`Egress::addresses`], and `unreachable` when none answers within 10 s.
    pub async fn connect(&self, host: &str, port: u16, unreachable: Code) -> Result<TcpStream> {
        let told = |what: &str| Error::new(unreachable, format!("{host}:{port} {what}"));
        let mut last = told("does not resolve to an address");
        for address in self.addresses(host, port, unreachable).await? {
            match timeout(DIAL, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = told("refuses connections").caused_by(error),
                Err(_) => last = told("does not answer within 10 s"),
            }
        }
        Err(last)
    }

    /// Finds Freshet's own database, at the start and again with every host that is looked up, for it may move. What
    /// cannot be found stays where it was.
    pub async fn look_own_up(&self) {
        let found = future::join_all(self.own.hosts.iter().map(|host| self.lookup.lookup(host))).await;
        if found.iter().all(|found| found.as_ref().is_ok_and(|addresses| !addresses.is_empty())) {
            let addresses = found.into_iter().flatten().flatten().map(|address| address.to_canonical()).collect();
            *self.own.addresses.write().unwrap_or_else(PoisonError::into_inner) = addresses;
        }
    }
}

/// The networks and addresses of a list with commas.
fn networks(list: &str) -> Result<Vec<IpNet>, String> {
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let network = |entry: &str| {
        let one = || entry.parse::<IpAddr>().ok().map(IpNet::from);
        entry.parse::<IpNet>().ok().or_else(one).ok_or_else(|| format!("`{entry}` is neither a network nor an address"))
    };
    entries.map(network).collect()
}

/// The host of a database's address; none for a socket's path, and where nothing is set.
fn database_host(url: &Secret) -> Option<String> {
    let url = url.expose();
    let options = (!url.is_empty()).then(|| url.parse::<PgConnectOptions>().ok()).flatten()?;
    let host = options.get_host().trim_matches(['[', ']']);
    (options.get_socket().is_none() && !host.is_empty() && !host.starts_with('/')).then(|| host.to_owned())
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
            "100.100.100.200",
            "168.63.129.16",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
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
    fn an_organizations_policy_takes_the_place_of_the_installations() {
        let installation = Egress::new(Reach::Private, "192.0.2.1").unwrap();
        let allows = |policy: &Egress, address: &str| policy.allows(address.parse().unwrap());

        let narrow = installation.of_organization(Reach::Public, "").unwrap();
        let wide = installation.of_organization(Reach::Public, "10.1.0.0/16, 169.254.1.1").unwrap();

        assert!(!allows(&narrow, "10.1.2.3") && !allows(&narrow, "192.0.2.1") && allows(&narrow, "8.8.8.8"));
        assert!(allows(&wide, "10.1.2.3") && allows(&wide, "169.254.1.1") && !allows(&wide, "10.2.0.1"));
        assert!(allows(&installation, "10.2.0.1"), "the installation's own stays");
        let again = installation.of_organization(Reach::Public, "").unwrap();
        assert!(Arc::ptr_eq(&narrow, &again), "what goes by a policy is shared by who has the same");
        let refused = installation.of_organization(Reach::Public, "10.1.0.0/16,inner").unwrap_err();
        assert_eq!((refused.code, refused.fields[0].pointer.as_str()), (Code::Invalid, "/allow"));
    }

    #[tokio::test]
    async fn no_organizations_list_opens_this_machine_or_freshets_own_database() {
        let names = || Names(&[("db.inner", "10.0.0.7"), ("alias.example", "10.0.0.7"), ("shop.inner", "10.0.0.8")]);
        let url = ("database_url", "postgres://freshet_app:secret@db.inner:5432/freshet");
        let installation = |allow| {
            let settings = Settings::with(&[url, ("egress_allow", allow)]).unwrap();
            Egress::from_settings(&settings).unwrap().with_lookup(names())
        };
        let (closed, open) = (installation(""), installation("10.0.0.7,127.0.0.0/8"));
        let everything = "0.0.0.0/0,::/0";
        let asked = async |egress: &Egress, host: &str| {
            egress.addresses(host, 5432, Code::PostgresUnreachable).await.map_err(|error| error.code)
        };

        let (own, named) = (
            closed.of_organization(Reach::Private, everything).unwrap(),
            open.of_organization(Reach::Private, everything).unwrap(),
        );

        for host in ["db.inner", "alias.example"] {
            assert_eq!(asked(&own, host).await, Err(Code::EgressBlocked), "{host}");
            assert!(asked(&named, host).await.is_ok(), "{host}: the installation's own settings open it");
        }
        assert!(asked(&own, "shop.inner").await.is_ok());
        for address in ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"] {
            assert!(!own.allows(address.parse().unwrap()), "{address}");
        }
        assert!(named.allows("127.0.0.1".parse().unwrap()) && !named.allows("::1".parse().unwrap()));
        let narrow = open.of_organization(Reach::Private, "").unwrap();
        assert_eq!(asked(&narrow, "db.inner").await, Err(Code::EgressBlocked), "a list of its own opens what it names");
    }

    #[test]
    fn one_forbidden_address_of_a_name_refuses_it() {
        let egress = Egress::new(Reach::Public, "").unwrap();
        let both = ["8.8.8.8", "10.0.0.1"].map(|address| address.parse().unwrap());

        let refused = egress.check("two-faced.example", both).unwrap_err();

        assert_eq!(refused.code, Code::EgressBlocked);
        assert!(refused.message.contains("two-faced.example") && !refused.message.contains("10.0.0.1"));
    }

    /// Names with addresses of the test's own.
    struct Names(&'static [(&'static str, &'static str)]);

    #[async_trait]
    impl Lookup for Names {
        async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
            let of_host = self.0.iter().filter(|(name, _)| *name == host);
            Ok(of_host.map(|(_, address)| address.parse().unwrap()).collect())
        }
    }

    #[tokio::test]
    async fn freshets_own_database_is_no_source_unless_it_is_named() {
        let names = || Names(&[("db.inner", "10.0.0.7"), ("alias.example", "10.0.0.7"), ("shop.inner", "10.0.0.8")]);
        let url = ("database_url", "postgres://freshet_app:secret@db.inner:5432/freshet");
        let policy = |allow| {
            let settings = Settings::with(&[url, ("egress_allow", allow)]).unwrap();
            Egress::from_settings(&settings).unwrap().with_lookup(names())
        };
        let asked = async |egress: &Egress, host: &str| {
            egress.addresses(host, 5432, Code::PostgresUnreachable).await.map_err(|error| error.code)
        };

        let closed = policy("");
        let named = policy("10.0.0.7");

        for host in ["db.inner", "alias.example"] {
            assert_eq!(asked(&closed, host).await, Err(Code::EgressBlocked), "{host}");
            assert!(asked(&named, host).await.is_ok(), "{host}");
        }
        assert!(asked(&closed, "shop.inner").await.is_ok());
        assert_eq!(asked(&closed, "nowhere.inner").await, Err(Code::PostgresUnreachable));
        assert!(!format!("{closed:?}").contains("secret"));
    }

    #[test]
    fn a_database_behind_a_sockets_path_has_no_host() {
        let host = |url: &str| database_host(&url.parse().unwrap());

        assert_eq!(host("postgres://u@db:1/d").as_deref(), Some("db"));
        assert_eq!(host("postgres://u@[::1]:1/d").as_deref(), Some("::1"));
        assert_eq!(host("postgres:///d?host=/var/run/postgresql"), None);
        assert_eq!(host(""), None);
    }
}
