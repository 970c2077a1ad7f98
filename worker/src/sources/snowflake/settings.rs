//! The settings of a Snowflake connection.

use freshet_core::connector::{DrawnKey, Field, FieldKind, KEPT_SECRET};
use freshet_core::error::{Code, Error, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::client::Context;
use super::sign_in::SignIn;
use super::sign_in::key_pair::{KeyPair, Signer, Slot};
use super::sign_in::oauth::{KeptToken, OAuth, OAuthApp, RefreshTokens};
use super::sql::identifier;

/// How the connection signs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignInKind {
    /// Tokens signed with a private key.
    #[default]
    KeyPair,
    /// A programmatic access token.
    AccessToken,
    /// OAuth with a refresh token.
    #[serde(rename = "oauth")]
    OAuth,
}

/// Sign-in, and its secrets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignInSettings {
    /// How.
    pub kind: SignInKind,
    /// For `key_pair`: PKCS#8 in PEM.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub private_key: Option<SecretString>,
    /// For `key_pair`: the user's other key, while keys are turned over.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub private_key_2: Option<SecretString>,
    /// For `key_pair`: opens the keys that are encrypted.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub passphrase: Option<SecretString>,
    /// For `access_token`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub token: Option<SecretString>,
    /// For `oauth`: of the account's security integration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// For `oauth`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub client_secret: Option<SecretString>,
    /// For `oauth`: from the consent.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub refresh_token: Option<SecretString>,
}

/// The settings of a Snowflake connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnowflakeSettings {
    /// The account: `myorg-myaccount`, or a locator with its region, `xy12345.eu-central-1`.
    pub account: String,
    /// The address, if it is not `https://<account>.snowflakecomputing.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The user's login name.
    pub user: String,
    /// How to sign in.
    #[serde(default)]
    pub sign_in: SignInSettings,
    /// The role; the user's default if not given. In upper case unless it stands in double quotes, as all names here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The warehouse; the user's default if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warehouse: Option<String>,
    /// The database that is read.
    pub database: String,
    /// The schema of that database that belongs to Freshet: batches are staged there.
    #[serde(default = "default_work_schema")]
    pub work_schema: String,
    /// The longest a statement may take, in seconds, 1 to 86 400.
    #[serde(default = "default_statement_timeout_s")]
    pub statement_timeout_s: u32,
    /// How long a transaction of those who write may last, in seconds, 0 to 3 600: an incremental run leaves newer
    /// rows to the next one.
    #[serde(default = "default_late_commit_s")]
    pub late_commit_s: u32,
    /// What an hour of the warehouse costs, in credits, for estimates: 1 is X-Small, and each size is twice the last.
    #[serde(default = "default_credits_per_hour")]
    pub credits_per_hour: f64,
}

fn default_work_schema() -> String {
    "FRESHET".into()
}

fn default_statement_timeout_s() -> u32 {
    3_600
}

fn default_late_commit_s() -> u32 {
    60
}

fn default_credits_per_hour() -> f64 {
    1.0
}

/// Settings are written whole only between the API's check and the vault.
fn expose<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(ExposeSecret::expose_secret).serialize(serializer)
}

const KINDS: &[&str] = &["key_pair", "access_token", "oauth"];

const fn field(name: &'static str, label: &'static str, help: &'static str, kind: FieldKind) -> Field {
    Field { name, label, help, kind, required: false, secret: false }
}

const fn required(field: Field) -> Field {
    Field { required: true, ..field }
}

const fn secret(field: Field) -> Field {
    Field { secret: true, ..field }
}

pub(super) const FIELDS: &[Field] = &[
    required(field("account", "Account", "`myorg-myaccount`, or `xy12345.eu-central-1`.", FieldKind::Text)),
    field("host", "Address", "`https://<account>.snowflakecomputing.com` if not given.", FieldKind::Text),
    required(field("user", "User", "The login name of a user of type SERVICE.", FieldKind::Text)),
    field("sign_in.kind", "Sign-in", "key_pair if not given.", FieldKind::Choice(KINDS)),
    secret(field("sign_in.private_key", "Private key", "PKCS#8 in PEM; kept in the vault.", FieldKind::LongText)),
    secret(field(
        "sign_in.private_key_2",
        "Second private key",
        "Of the user's other slot, while keys are turned over.",
        FieldKind::LongText,
    )),
    secret(field("sign_in.passphrase", "Passphrase", "Opens a key that is encrypted.", FieldKind::Text)),
    secret(field("sign_in.token", "Access token", "A programmatic access token of the user.", FieldKind::Text)),
    field("sign_in.client_id", "OAuth client id", "Of the account's security integration.", FieldKind::Text),
    secret(field("sign_in.client_secret", "OAuth client secret", "Of the same.", FieldKind::Text)),
    secret(field("sign_in.refresh_token", "OAuth refresh token", "From the consent.", FieldKind::Text)),
    field("role", "Role", "The user's default if not given; upper case unless in double quotes.", FieldKind::Text),
    field("warehouse", "Warehouse", "The user's default if not given.", FieldKind::Text),
    required(field("database", "Database", "The database that is read.", FieldKind::Text)),
    field("work_schema", "Freshet's schema", "Where batches are staged; FRESHET if not given.", FieldKind::Text),
    field("statement_timeout_s", "Statement timeout", "Seconds; 3600 if not given.", FieldKind::Number),
    field(
        "late_commit_s",
        "Longest transaction",
        "Seconds that a transaction of those who write may last; 60 if not given.",
        FieldKind::Number,
    ),
    field(
        "credits_per_hour",
        "Price of the warehouse",
        "Credits an hour, for estimates: 1 is X-Small, and each size is twice the last; 1 if not given.",
        FieldKind::Number,
    ),
];

impl SnowflakeSettings {
    pub(super) fn validate(&self, hosts: &Hosts) -> Result<()> {
        let of_account = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let edges = self.account.starts_with(['.', '-']) || self.account.ends_with(['.', '-']);
        if self.account.is_empty() || self.account.len() > 255 || edges || !self.account.bytes().all(of_account) {
            return Err(Error::invalid(
                "/settings/account",
                "must be the account's name, without an address around it",
            ));
        }
        hosts.base_url(self)?;
        let names = [
            ("/settings/user", Some(&self.user)),
            ("/settings/role", self.role.as_ref()),
            ("/settings/warehouse", self.warehouse.as_ref()),
            ("/settings/database", Some(&self.database)),
            ("/settings/work_schema", Some(&self.work_schema)),
        ];
        for (pointer, name) in names {
            if name.is_some_and(|name| name.is_empty() || name.len() > 255 || name.chars().any(char::is_control)) {
                return Err(Error::invalid(pointer, "must have 1 to 255 characters"));
            }
        }
        if !(1..=86_400).contains(&self.statement_timeout_s) {
            return Err(Error::invalid("/settings/statement_timeout_s", "must be 1 to 86400"));
        }
        if self.late_commit_s > 3_600 {
            return Err(Error::invalid("/settings/late_commit_s", "must be 0 to 3600"));
        }
        if !(0.0..=4_096.0).contains(&self.credits_per_hour) {
            return Err(Error::invalid("/settings/credits_per_hour", "must be 0 to 4096"));
        }
        self.validate_sign_in()
    }

    fn validate_sign_in(&self) -> Result<()> {
        let sign_in = &self.sign_in;
        match sign_in.kind {
            SignInKind::KeyPair if sign_in.private_key.is_none() && sign_in.private_key_2.is_none() => Ok(()),
            SignInKind::KeyPair => {
                let kept = |key: &Option<SecretString>| key.as_ref().is_some_and(is_kept);
                // What is in the vault was checked when it went there.
                if !kept(&sign_in.private_key) && !kept(&sign_in.private_key_2) && !kept(&sign_in.passphrase) {
                    self.key_pairs()?;
                }
                Ok(())
            }
            SignInKind::AccessToken => given(sign_in.token.as_ref(), "token").map(|_| ()),
            SignInKind::OAuth => {
                given(sign_in.client_id.as_ref(), "client_id")?;
                given(sign_in.client_secret.as_ref(), "client_secret").map(|_| ())
            }
        }
    }

    fn key_pairs(&self) -> Result<Vec<KeyPair>> {
        let passphrase = self.sign_in.passphrase.as_ref().map(ExposeSecret::expose_secret);
        let slots = [(&self.sign_in.private_key, "private_key"), (&self.sign_in.private_key_2, "private_key_2")];
        let keys = slots.into_iter().filter_map(|(key, name)| Some((key.as_ref()?, name)));
        // A key that Freshet drew has no passphrase.
        let parse = |(key, name): (&SecretString, &str)| {
            let passphrase = passphrase.filter(|_| key.expose_secret().contains("ENCRYPTED"));
            KeyPair::parse(key.expose_secret(), passphrase, &format!("/settings/sign_in/{name}"))
        };
        keys.map(parse).collect()
    }

    /// The integration that consents are asked by.
    ///
    /// # Errors
    /// `request.invalid` for a connection that signs in otherwise.
    pub(super) fn oauth_app(&self, base_url: String) -> Result<OAuthApp> {
        let sign_in = &self.sign_in;
        if sign_in.kind != SignInKind::OAuth {
            return Err(Error::invalid("/settings/sign_in/kind", "must be `oauth` for a consent"));
        }
        Ok(OAuthApp {
            base_url,
            client_id: given(sign_in.client_id.as_ref(), "client_id")?.clone(),
            client_secret: given(sign_in.client_secret.as_ref(), "client_secret")?.clone(),
        })
    }

    /// Draws a key pair for the user.
    ///
    /// # Errors
    /// `request.invalid` for a connection that signs in otherwise.
    pub(super) fn draw_key(&self, second: bool) -> Result<DrawnKey> {
        if self.sign_in.kind != SignInKind::KeyPair {
            return Err(Error::invalid("/settings/sign_in/kind", "must be `key_pair` for a key pair"));
        }
        let (slot, field) = match second {
            false => (Slot::First, "sign_in.private_key"),
            true => (Slot::Second, "sign_in.private_key_2"),
        };
        let drawn = KeyPair::draw()?;
        Ok(DrawnKey {
            field,
            private_key: drawn.private_pem()?.expose_secret().parse().unwrap_or_default(),
            fingerprint: drawn.fingerprint().to_owned(),
            script: drawn.alter_user(&stored_name(&self.user), slot)?,
        })
    }

    /// The script that gives the role what Freshet uses, and no more.
    pub(super) fn setup_script(&self) -> String {
        let context = self.context();
        let role = identifier(context.role.as_deref().unwrap_or("FRESHET"));
        let (user, database) = (identifier(&stored_name(&self.user)), identifier(&stored_name(&self.database)));
        let schema = format!("{database}.{}", identifier(&stored_name(&self.work_schema)));
        let warehouse = match &context.warehouse {
            Some(warehouse) => format!("grant usage on warehouse {} to role {role};\n", identifier(warehouse)),
            None => "-- grant usage on warehouse … to role …: the user's default warehouse\n".to_owned(),
        };
        format!(
            "create role if not exists {role};\n\
             grant role {role} to user {user};\n\
             {warehouse}\
             grant usage on database {database} to role {role};\n\
             -- Freshet's own schema: batches are staged there, and Streams that Freshet makes.\n\
             create schema if not exists {schema};\n\
             grant usage, create table, create stream on schema {schema} to role {role};\n\
             -- What is read; repeat for each schema, or name single tables, views and Streams.\n\
             grant usage on schema {database}.PUBLIC to role {role};\n\
             grant select on all tables in schema {database}.PUBLIC to role {role};\n\
             grant select on all views in schema {database}.PUBLIC to role {role};\n\
             grant select on all streams in schema {database}.PUBLIC to role {role};\n"
        )
    }

    /// What signs requests. `refresh_tokens` is where an OAuth connection's refresh token lies; without it the token
    /// of the settings is used, and one that takes its place is kept in memory alone.
    ///
    /// # Errors
    /// `request.invalid` for what is missing or does not read.
    pub fn sign_in(&self, base_url: &str, refresh_tokens: Option<Box<dyn RefreshTokens>>) -> Result<SignIn> {
        let sign_in = &self.sign_in;
        Ok(match sign_in.kind {
            SignInKind::KeyPair => {
                let keys = self.key_pairs()?;
                if keys.is_empty() {
                    let told = "the connection has no key yet; `POST /v1/connections/{id}/key-pair` draws one";
                    return Err(Error::new(Code::SnowflakeLogin, told));
                }
                SignIn::KeyPair(Signer::new(&self.account, &self.user, keys))
            }
            SignInKind::AccessToken => SignIn::Token(given(sign_in.token.as_ref(), "token")?.clone()),
            SignInKind::OAuth => {
                let app = self.oauth_app(base_url.to_owned())?;
                let kept = sign_in.refresh_token.clone().ok_or_else(no_consent)?;
                SignIn::OAuth(OAuth::new(app, refresh_tokens.unwrap_or_else(|| Box::new(KeptToken::new(kept)))))
            }
        })
    }

    /// Where statements run.
    #[must_use]
    pub fn context(&self) -> Context {
        Context {
            role: self.role.as_deref().map(stored_name),
            warehouse: self.warehouse.as_deref().map(stored_name),
            database: Some(stored_name(&self.database)),
        }
    }
}

/// The secret field of the refresh token.
pub(super) const REFRESH_TOKEN: &str = "sign_in.refresh_token";

/// Nobody has consented yet.
pub(super) fn no_consent() -> Error {
    let told = "nobody has consented yet; `POST /v1/connections/{id}/consent` gives the address where to";
    Error::new(Code::SnowflakeConsent, told)
}

fn given<'a, T>(value: Option<&'a T>, name: &str) -> Result<&'a T> {
    value.ok_or_else(|| Error::invalid(format!("/settings/sign_in/{name}"), "is needed for this kind of sign-in"))
}

fn is_kept(secret: &SecretString) -> bool {
    secret.expose_secret() == KEPT_SECRET
}

/// A name as Snowflake stores it: in upper case, or as it stands in double quotes.
#[must_use]
pub fn stored_name(name: &str) -> String {
    match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_uppercase(),
    }
}

/// Snowflake's own domains.
const DOMAINS: [&str; 2] = [".snowflakecomputing.com", ".snowflakecomputing.cn"];

/// Which addresses a connection may have: Snowflake's own over https, and those that the installation allows besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<(String, u16)>);

impl Hosts {
    /// Reads the setting `snowflake_hosts`: `host:port`, comma-separated.
    ///
    /// # Errors
    /// `platform.settings`.
    pub fn parse(setting: &str) -> Result<Self> {
        let entry = |entry: &str| {
            let (host, port) = entry.rsplit_once(':')?;
            let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
            Some((host, port.parse().ok().filter(|port| *port > 0)?)).filter(|(host, _)| !host.is_empty())
        };
        let entries = setting.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let told = || Error::new(Code::Settings, "FRESHET_SNOWFLAKE_HOSTS: must be `host:port`, comma-separated");
        entries.map(|text| entry(text).ok_or_else(told)).collect::<Result<_>>().map(Self)
    }

    /// The address of an account, without a slash at its end.
    ///
    /// # Errors
    /// `request.invalid` for an address that is not allowed.
    pub fn base_url(&self, settings: &SnowflakeSettings) -> Result<String> {
        let refused = |why: &str| Error::invalid("/settings/host", why);
        let text = match &settings.host {
            Some(host) if host.contains("://") => host.clone(),
            Some(host) => format!("https://{host}"),
            None => account_url(&settings.account),
        };
        let url = url::Url::parse(&text).map_err(|_| refused("must be an address, `https://name` or `name:port`"))?;
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(refused("must be an address, `https://name` or `name:port`"));
        };
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.path() == "/";
        if !bare || url.fragment().is_some() {
            return Err(refused("must be a host alone, without a path or a login"));
        }
        let host = host.trim_matches(['[', ']']);
        let listed = self.0.iter().any(|(known, open)| known == host && *open == port);
        let snowflakes = DOMAINS.iter().any(|domain| host.strip_suffix(domain).is_some_and(|name| !name.is_empty()));
        match url.scheme() {
            "https" if listed || (snowflakes && port == 443) => {}
            "http" if listed && is_loopback(host) => {}
            "https" => return Err(refused("must end in .snowflakecomputing.com or .snowflakecomputing.cn")),
            _ => return Err(refused("must be https")),
        }
        Ok(url.origin().ascii_serialization())
    }
}

fn account_url(account: &str) -> String {
    let name = account.to_ascii_lowercase().replace('_', "-");
    let china = name.split('.').nth(1).is_some_and(|region| region.starts_with("cn-"));
    format!("https://{name}{}", DOMAINS[usize::from(china)])
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(changes: serde_json::Value) -> SnowflakeSettings {
        let mut settings = json!({
            "account": "myorg-my_acct", "user": "loader", "database": "shop",
            "sign_in": {"kind": "access_token", "token": "secret-token"},
        });
        for (name, value) in changes.as_object().unwrap() {
            settings[name] = value.clone();
        }
        serde_json::from_value(settings).unwrap()
    }

    fn url(hosts: &str, changes: serde_json::Value) -> Result<String, String> {
        let hosts = Hosts::parse(hosts).unwrap();
        hosts.base_url(&settings(changes)).map_err(|error| error.message)
    }

    #[test]
    fn an_account_has_its_address() {
        assert_eq!(url("", json!({})).unwrap(), "https://myorg-my-acct.snowflakecomputing.com");
        let account = |name: &str| url("", json!({"account": name})).unwrap();
        assert_eq!(account("XY12345.eu-central-1"), "https://xy12345.eu-central-1.snowflakecomputing.com");
        assert_eq!(account("xy1.cn-northwest-1"), "https://xy1.cn-northwest-1.snowflakecomputing.cn");
        let link = json!({"host": "a.privatelink.snowflakecomputing.com"});
        assert_eq!(url("", link).unwrap(), "https://a.privatelink.snowflakecomputing.com");
    }

    #[test]
    fn another_host_is_refused_unless_the_installation_allows_it() {
        for host in [
            "metadata.internal",
            "169.254.169.254",
            "snowflakecomputing.com.evil.example",
            "evilsnowflakecomputing.com",
            "a.snowflakecomputing.com@evil.example",
            "a.snowflakecomputing.com:22",
            "http://a.snowflakecomputing.com",
            "https://a.snowflakecomputing.com/path",
            "file:///etc/passwd",
            "http://127.0.0.1:8085",
            "https://10.0.0.1:8085",
        ] {
            assert!(url("other:1", json!({"host": host})).is_err(), "{host}");
        }
        let listed = "127.0.0.1:8085, gateway:8443,10.0.0.1:80";
        assert_eq!(url(listed, json!({"host": "http://127.0.0.1:8085"})).unwrap(), "http://127.0.0.1:8085");
        assert_eq!(url(listed, json!({"host": "gateway:8443"})).unwrap(), "https://gateway:8443");
        assert!(url(listed, json!({"host": "http://10.0.0.1:80"})).is_err());
        assert!(Hosts::parse("no-port").is_err());
    }

    #[test]
    fn names_are_in_upper_case_unless_quoted() {
        let context = settings(json!({"role": "loader", "warehouse": "\"My wh\""})).context();

        assert_eq!(context.role.as_deref(), Some("LOADER"));
        assert_eq!(context.warehouse.as_deref(), Some("My wh"));
        assert_eq!(context.database.as_deref(), Some("SHOP"));
    }

    #[test]
    fn what_a_sign_in_needs_is_asked_for_and_no_secret_is_repeated() {
        let hosts = Hosts::default();
        assert!(settings(json!({})).validate(&hosts).is_ok());
        for (sign_in, pointer) in [
            (json!({"private_key": "hunter2"}), "/settings/sign_in/private_key"),
            (json!({"kind": "access_token"}), "/settings/sign_in/token"),
            (json!({"kind": "oauth", "client_id": "a"}), "/settings/sign_in/client_secret"),
        ] {
            let error = settings(json!({"sign_in": sign_in})).validate(&hosts).unwrap_err();
            assert_eq!(error.fields[0].pointer, pointer);
            assert!(!error.chain().contains("hunter2"));
        }
        let kept = json!({"sign_in": {"private_key": KEPT_SECRET}});
        assert!(settings(kept).validate(&hosts).is_ok());
        assert!(!format!("{:?}", settings(json!({}))).contains("secret-token"));
    }
}
