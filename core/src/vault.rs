//! Seals and opens secrets: each has a data key of its own, wrapped by a named master key.
//!
//! ~~~text
//! FRESHET_MASTER_KEYS  name ─► master key ──wraps──► data key ──seals──► secret
//!                                   AES-256-GCM            AES-256-GCM
//! ~~~
//!
//! Both layers bind owner and secret id as associated data, so a ciphertext moved to another row does not open. Turning a
//! master key over re-wraps data keys only. A workspace's secrets are opened in a worker alone: the API holds the vault to
//! seal; a person's second factor and the secret of an organization's issuer are opened where people sign in.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::RngCore;
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::id::{OrganizationId, SecretId, UserId, WorkspaceId};
use crate::settings::Secret;

const NONCE_LENGTH: usize = 12;

/// A secret as it is stored; of no use without the master key.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The name of the master key that wraps the data key.
    pub master_key: String,
    /// Nonce and wrapped data key.
    pub wrapped_key: Vec<u8>,
    /// Nonce and sealed text.
    pub ciphertext: Vec<u8>,
}

/// Holds the master keys.
pub struct Vault {
    keys: Vec<(String, Aes256Gcm)>,
}

/// Whose secret it is, by its id's text.
pub trait Owner: std::fmt::Display + Copy {}

impl Owner for WorkspaceId {}
impl Owner for UserId {}
impl Owner for OrganizationId {}

impl Vault {
    /// Reads `name=base64,name=base64`; the first key seals, all open.
    ///
    /// # Errors
    /// [`Code::Settings`] when there is none, a name repeats, or a key is not 32 bytes or all one byte.
    pub fn from_setting(setting: &Secret) -> Result<Self> {
        let told = |detail: String| Error::new(Code::Settings, format!("FRESHET_MASTER_KEYS: {detail}"));
        let mut keys: Vec<(String, Aes256Gcm)> = Vec::new();
        for part in setting.expose().split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, key) = part.split_once('=').ok_or_else(|| told("wants `name=base64`".into()))?;
            let key = Zeroizing::new(BASE64.decode(key).unwrap_or_default());
            if key.len() != 32 {
                return Err(told(format!("key `{name}` is not 32 bytes in base64")));
            }
            if key.iter().all(|byte| *byte == key[0]) {
                return Err(told(format!("key `{name}` is not random; make one with `freshet key master`")));
            }
            if keys.iter().any(|(known, _)| known == name) {
                return Err(told(format!("key `{name}` is given twice")));
            }
            keys.push((name.to_owned(), Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(&key))));
        }
        if keys.is_empty() {
            return Err(told("no key given; make one with `freshet key master`".into()));
        }
        Ok(Self { keys })
    }

    /// A new master key's text, for the setting.
    #[must_use]
    pub fn draw_master_key() -> String {
        BASE64.encode(draw::<32>().as_slice())
    }

    /// The name of the key that seals.
    #[must_use]
    pub fn current_key(&self) -> &str {
        &self.keys[0].0
    }

    /// Seals a text for one row of one owner: a workspace, a person, or an organization.
    ///
    /// # Errors
    /// [`Code::Vault`], never for a text under 64 GiB.
    pub fn seal(&self, owner: impl Owner, id: SecretId, text: &str) -> Result<Sealed> {
        let (name, master) = &self.keys[0];
        let data_key = draw::<32>();
        let data_cipher = Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(data_key.as_slice()));
        Ok(Sealed {
            master_key: name.clone(),
            wrapped_key: encrypt(master, &bound(owner, id, "key"), data_key.as_slice())?,
            ciphertext: encrypt(&data_cipher, &bound(owner, id, "text"), text.as_bytes())?,
        })
    }

    /// Opens what [`Vault::seal`] sealed for the same row.
    ///
    /// # Errors
    /// [`Code::Vault`] when the master key is not among ours, or the row was tampered with or moved.
    pub fn open(&self, owner: impl Owner, id: SecretId, sealed: &Sealed) -> Result<Zeroizing<String>> {
        let data_key = self.unwrap(owner, id, &sealed.master_key, &sealed.wrapped_key)?;
        let data_cipher = Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(&data_key));
        let text = decrypt(&data_cipher, &bound(owner, id, "text"), &sealed.ciphertext)?;
        String::from_utf8(text.to_vec()).map(Zeroizing::new).map_err(|_| tampered())
    }

    /// Wraps a data key by the current master key; the secret itself is not opened.
    ///
    /// # Errors
    /// [`Code::Vault`], as [`Vault::open`].
    pub fn rewrap(&self, owner: impl Owner, id: SecretId, master_key: &str, wrapped_key: &[u8]) -> Result<Vec<u8>> {
        let data_key = self.unwrap(owner, id, master_key, wrapped_key)?;
        encrypt(&self.keys[0].1, &bound(owner, id, "key"), &data_key)
    }

    fn unwrap(&self, owner: impl Owner, id: SecretId, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let (_, master) =
            self.keys.iter().find(|(known, _)| known == name).ok_or_else(|| {
                Error::new(Code::Vault, format!("master key `{name}` is not among FRESHET_MASTER_KEYS"))
            })?;
        let key = decrypt(master, &bound(owner, id, "key"), wrapped)?;
        if key.len() == 32 { Ok(key) } else { Err(tampered()) }
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(name, _)| name)).finish()
    }
}

fn draw<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::rng().fill_bytes(bytes.as_mut_slice());
    bytes
}

fn bound(owner: impl Owner, id: SecretId, layer: &str) -> String {
    format!("{owner}|{id}|{layer}|1")
}

fn encrypt(cipher: &Aes256Gcm, bound: &str, text: &[u8]) -> Result<Vec<u8>> {
    let nonce = draw::<NONCE_LENGTH>();
    let sealed = cipher
        .encrypt(Nonce::from_slice(nonce.as_slice()), Payload { msg: text, aad: bound.as_bytes() })
        .map_err(|_| Error::new(Code::Vault, "a secret cannot be sealed"))?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn decrypt(cipher: &Aes256Gcm, bound: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let (nonce, text) = sealed.split_at_checked(NONCE_LENGTH).ok_or_else(tampered)?;
    cipher
        .decrypt(Nonce::from_slice(nonce), Payload { msg: text, aad: bound.as_bytes() })
        .map(Zeroizing::new)
        .map_err(|_| tampered())
}

fn tampered() -> Error {
    Error::new(Code::Vault, "a secret does not open: another master key, or its row was changed or moved")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(names: &[&str]) -> Vault {
        let text = names
            .iter()
            .map(|name| {
                let bytes: Vec<u8> = (0..32).map(|byte| byte + name.len() as u8 * 7).collect();
                format!("{name}={}", BASE64.encode(bytes))
            })
            .collect::<Vec<_>>()
            .join(",");
        Vault::from_setting(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_secret_opens_in_its_own_row_alone() {
        let (vault, workspace, id) = (vault(&["first"]), WorkspaceId::new(), SecretId::new());

        let sealed = vault.seal(workspace, id, "hunter2").unwrap();

        assert_eq!(vault.open(workspace, id, &sealed).unwrap().as_str(), "hunter2");
        assert_eq!(vault.open(WorkspaceId::new(), id, &sealed).unwrap_err().code, Code::Vault);
        assert_eq!(vault.open(workspace, SecretId::new(), &sealed).unwrap_err().code, Code::Vault);
    }

    #[test]
    fn a_master_key_can_be_turned_over() {
        let (workspace, id) = (WorkspaceId::new(), SecretId::new());
        let mut sealed = vault(&["first"]).seal(workspace, id, "hunter2").unwrap();
        let both = vault(&["second", "first"]);

        sealed.wrapped_key = both.rewrap(workspace, id, &sealed.master_key, &sealed.wrapped_key).unwrap();
        sealed.master_key = both.current_key().to_owned();

        assert_eq!(vault(&["second"]).open(workspace, id, &sealed).unwrap().as_str(), "hunter2");
        let lost = vault(&["first"]).open(workspace, id, &sealed).unwrap_err();
        assert_eq!(lost.message, "master key `second` is not among FRESHET_MASTER_KEYS");
    }

    #[test]
    fn weak_and_missing_master_keys_are_refused() {
        for (setting, says) in [
            ("", "no key given"),
            ("a", "wants `name=base64`"),
            ("a=c2hvcnQ=", "not 32 bytes"),
            ("a=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "not random"),
        ] {
            let error = Vault::from_setting(&setting.parse().unwrap()).unwrap_err();
            assert!(error.message.contains(says), "{setting}: {error}");
        }
    }
}
