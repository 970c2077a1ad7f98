//! Seals and opens secrets: each has a data key of its own, wrapped by a named master key.
//!
//! ~~~text
//! FRESHET_MASTER_KEYS       name ─► master key ──wraps──► data key ──seals──► secret
//! FRESHET_MASTER_KEYS_FILE               AES-256-GCM            AES-256-GCM
//! ~~~
//!
//! Both layers bind owner and secret id as associated data, so a ciphertext moved to another row does not open. Turning a
//! master key over re-wraps data keys only (`secret::turnover`). A workspace's secrets are opened in a worker alone: the
//! API holds the vault to seal; a person's second factor and the secret of an organization's issuer are opened where people
//! sign in.
//!
//! Master keys of a file are looked at again while the process runs ([`Vault::look_again`]). One that is dropped from the
//! file opens for another minute, for what a process that has not looked yet seals by it; then it is wiped from memory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::RngCore;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::id::{OrganizationId, SecretId, UserId, WorkspaceId};
use crate::settings::{Secret, Settings};

const NONCE_LENGTH: usize = 12;
/// How long a key opens that is not in the file any more.
const DROPPED_FOR: Duration = Duration::from_secs(60);
/// Bytes of a file of master keys, at most: a thousand keys.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A secret as it is stored; of no use without the master key.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Sealed {
    /// The name of the master key that wraps the data key.
    pub master_key: String,
    /// Nonce and wrapped data key.
    pub wrapped_key: Vec<u8>,
    /// Nonce and sealed text.
    pub ciphertext: Vec<u8>,
}

/// A data key that was wrapped anew.
#[derive(Debug, Clone)]
pub struct Rewrapped {
    /// The master key that wraps it now.
    pub master_key: String,
    /// Nonce and wrapped data key.
    pub wrapped_key: Vec<u8>,
}

/// Holds the master keys.
pub struct Vault {
    /// The first seals, all open. Those that were dropped come last.
    keys: RwLock<Arc<Vec<Arc<MasterKey>>>>,
    /// Where they are looked for again; none for keys of the environment.
    file: Option<PathBuf>,
    looked: Mutex<Looked>,
}

/// Its key schedule is wiped when it is dropped.
struct MasterKey {
    name: String,
    cipher: Aes256Gcm,
    /// SHA-256 of the key: whether a name came back with another key.
    digest: [u8; 32],
    dropped_at: Option<Instant>,
}

/// What the file was when it was last looked at.
#[derive(Default)]
struct Looked {
    /// Of its text; none when it could not be read.
    digest: Option<[u8; 32]>,
    /// Why the keys before it hold.
    refused: Option<String>,
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
        let keys = read_keys(setting.expose().split(','), "FRESHET_MASTER_KEYS")?;
        Ok(Self { keys: RwLock::new(Arc::new(keys)), file: None, looked: Mutex::default() })
    }

    /// Reads the keys from the setting or from the file that the other one names.
    ///
    /// # Errors
    /// As [`Vault::from_setting`]; when both settings are given; when the file cannot be read.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        let file = settings.master_keys_file.as_str();
        if file.is_empty() {
            return Self::from_setting(&settings.master_keys);
        }
        if !settings.master_keys.expose().is_empty() {
            let told = "FRESHET_MASTER_KEYS and FRESHET_MASTER_KEYS_FILE: give one of them";
            return Err(Error::new(Code::Settings, told));
        }
        let text = read_file(Path::new(file))?;
        let keys = RwLock::new(Arc::new(read_keys_file(&text)?));
        let looked = Mutex::new(Looked { digest: Some(digest(text.as_bytes())), refused: None });
        Ok(Self { keys, file: Some(file.into()), looked })
    }

    /// Whether keys come from a file, which is to be looked at again.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file again; whether another key seals now. What is wrong with a file goes to the log, once, and the keys
    /// before it hold.
    pub fn look_again(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current_key();
        let text = read_file(file);
        let found = text.as_ref().ok().map(|text| digest(text.as_bytes()));
        if found.is_none() || found != looked.digest {
            let taken = text.and_then(|text| read_keys_file(&text)).and_then(|keys| self.take(keys));
            let refused = taken.err().map(|error| error.chain());
            match &refused {
                None => tracing::info!(
                    current = self.current_key(), keys = ?self.names(), "the file of master keys was read again"
                ),
                Some(error) if looked.refused.as_ref() == Some(error) => {}
                Some(error) => tracing::error!(
                    error,
                    current = before,
                    "THE FILE OF MASTER KEYS CANNOT BE USED; the keys before it hold"
                ),
            }
            *looked = Looked { digest: found, refused };
        }
        self.forget_dropped();
        before != self.current_key()
    }

    /// Why the file is not what is used, if it is not.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).refused.clone()
    }

    /// Puts other keys in the place of those that are held.
    fn take(&self, mut keys: Vec<Arc<MasterKey>>) -> Result<()> {
        let held = self.keys();
        for old in held.iter() {
            match keys.iter().find(|new| new.name == old.name) {
                // One that fell to another key by mistake would open nothing that it sealed.
                Some(new) if new.digest != old.digest => {
                    let told = format!("key `{}` is another than before; a new key wants a name of its own", old.name);
                    return Err(Error::new(Code::Settings, format!("FRESHET_MASTER_KEYS_FILE: {told}")));
                }
                Some(_) => {}
                None => keys.push(Arc::new(MasterKey {
                    name: old.name.clone(),
                    cipher: old.cipher.clone(),
                    digest: old.digest,
                    dropped_at: old.dropped_at.or_else(|| Some(Instant::now())),
                })),
            }
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    fn forget_dropped(&self) {
        let over = |key: &Arc<MasterKey>| key.dropped_at.is_some_and(|at| at.elapsed() > DROPPED_FOR);
        let held = self.keys();
        if held.iter().any(over) {
            let rest = held.iter().filter(|key| !over(key)).cloned().collect();
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rest);
        }
    }

    fn keys(&self) -> Arc<Vec<Arc<MasterKey>>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new master key's text, for the setting.
    #[must_use]
    pub fn draw_master_key() -> String {
        BASE64.encode(draw::<32>().as_slice())
    }

    /// The name of the key that seals.
    #[must_use]
    pub fn current_key(&self) -> String {
        self.keys()[0].name.clone()
    }

    /// The names of the keys that are given, the one that seals first.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.keys().iter().filter(|key| key.dropped_at.is_none()).map(|key| key.name.clone()).collect()
    }

    /// The names of the keys that open: those that are given, and those that were dropped within the last minute.
    #[must_use]
    pub fn opening(&self) -> Vec<String> {
        self.keys().iter().map(|key| key.name.clone()).collect()
    }

    /// Seals a text for one row of one owner: a workspace, a person, or an organization.
    ///
    /// # Errors
    /// [`Code::Vault`], never for a text under 64 GiB.
    pub fn seal(&self, owner: impl Owner, id: SecretId, text: &str) -> Result<Sealed> {
        let keys = self.keys();
        let MasterKey { name, cipher: master, .. } = &*keys[0];
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
    pub fn rewrap(&self, owner: impl Owner, id: SecretId, master_key: &str, wrapped_key: &[u8]) -> Result<Rewrapped> {
        let data_key = self.unwrap(owner, id, master_key, wrapped_key)?;
        let keys = self.keys();
        let wrapped_key = encrypt(&keys[0].cipher, &bound(owner, id, "key"), &data_key)?;
        Ok(Rewrapped { master_key: keys[0].name.clone(), wrapped_key })
    }

    /// Whether a data key can be unwrapped; the secret itself is not opened.
    ///
    /// # Errors
    /// [`Code::Vault`], as [`Vault::open`].
    pub fn prove(&self, owner: impl Owner, id: SecretId, master_key: &str, wrapped_key: &[u8]) -> Result<()> {
        self.unwrap(owner, id, master_key, wrapped_key).map(|_| ())
    }

    fn unwrap(&self, owner: impl Owner, id: SecretId, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let held = |keys: &[Arc<MasterKey>]| keys.iter().find(|key| key.name == name).cloned();
        let master = held(&self.keys()).or_else(|| {
            // Another process may have looked before us, and sealed by a key that we do not know yet.
            self.look_again();
            held(&self.keys())
        });
        let master = master.ok_or_else(|| {
            Error::new(Code::Vault, format!("master key `{name}` is not among the master keys that are given"))
        })?;
        let key = decrypt(&master.cipher, &bound(owner, id, "key"), wrapped)?;
        if key.len() == 32 { Ok(key) } else { Err(tampered()) }
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys().iter().map(|key| &key.name)).finish()
    }
}

/// The file of master keys, as text.
fn read_file(path: &Path) -> Result<Zeroizing<String>> {
    let told =
        |what: &str| Error::new(Code::Settings, format!("FRESHET_MASTER_KEYS_FILE: `{}` {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| told("cannot be read").caused_by(error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(told("is larger than 64 KiB"));
    }
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| told("cannot be read").caused_by(error))
}

/// One key a line; empty lines, and those that begin with `#`, are none.
fn read_keys_file(text: &str) -> Result<Vec<Arc<MasterKey>>> {
    read_keys(text.lines().filter(|line| !line.trim_start().starts_with('#')), "FRESHET_MASTER_KEYS_FILE")
}

fn read_keys<'a>(parts: impl Iterator<Item = &'a str>, setting: &str) -> Result<Vec<Arc<MasterKey>>> {
    let told = |detail: String| Error::new(Code::Settings, format!("{setting}: {detail}"));
    let mut keys: Vec<Arc<MasterKey>> = Vec::new();
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        // A key without its name ends in a `=` of base64: what stands before that is no name, and not to be repeated.
        let (name, key) = part
            .split_once('=')
            .filter(|(name, key)| !name.is_empty() && !key.trim_matches('=').is_empty())
            .ok_or_else(|| told("wants `name=base64`".into()))?;
        let key = Zeroizing::new(BASE64.decode(key).unwrap_or_default());
        if key.len() != 32 {
            return Err(told(format!("key `{name}` is not 32 bytes in base64")));
        }
        if key.iter().all(|byte| *byte == key[0]) {
            return Err(told(format!("key `{name}` is not random; make one with `freshet key master`")));
        }
        if keys.iter().any(|known| known.name == name) {
            return Err(told(format!("key `{name}` is given twice")));
        }
        let cipher = Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(&key));
        let (name, digest) = (name.to_owned(), digest(&key));
        keys.push(Arc::new(MasterKey { name, cipher, digest, dropped_at: None }));
    }
    if keys.is_empty() {
        return Err(told("no key given; make one with `freshet key master`".into()));
    }
    Ok(keys)
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
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

        let anew = both.rewrap(workspace, id, &sealed.master_key, &sealed.wrapped_key).unwrap();
        (sealed.master_key, sealed.wrapped_key) = (anew.master_key, anew.wrapped_key);

        assert_eq!(vault(&["second"]).open(workspace, id, &sealed).unwrap().as_str(), "hunter2");
        let lost = vault(&["first"]).open(workspace, id, &sealed).unwrap_err();
        assert_eq!(lost.message, "master key `second` is not among the master keys that are given");
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

    /// A file of keys that is gone with the test.
    struct File(PathBuf);

    impl File {
        fn new(text: &str) -> Self {
            let file = Self(std::env::temp_dir().join(format!("freshet-keys-{}", SecretId::new())));
            file.write(text);
            file
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.0, text).unwrap();
        }

        fn vault(&self) -> Vault {
            let settings = Settings::with(&[("master_keys_file", self.0.to_str().unwrap())]).unwrap();
            Vault::from_settings(&settings).unwrap()
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn line(name: &str) -> String {
        format!("{name}={}\n", Vault::draw_master_key())
    }

    #[test]
    fn a_key_without_its_name_is_not_repeated() {
        let key = Vault::draw_master_key();

        for text in [key.clone(), format!("={key}"), format!("{key}=")] {
            let error = Vault::from_setting(&text.parse().unwrap()).unwrap_err().chain();
            assert!(error.contains("wants `name=base64`") && !error.contains(&key[..20]), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_again_and_what_the_others_sealed_meanwhile_opens() {
        let (first, second) = (line("first"), line("second"));
        let file = File::new(&first);
        let (early, late) = (file.vault(), file.vault());
        let (workspace, id) = (WorkspaceId::new(), SecretId::new());

        file.write(&format!("# the new one\n{second}\n{first}"));
        assert!(early.look_again() && !early.look_again());
        let sealed = early.seal(workspace, id, "hunter2").unwrap();

        assert_eq!((sealed.master_key.as_str(), late.current_key().as_str()), ("second", "first"));
        // It has not looked by itself: the name that it does not know has it look.
        assert_eq!(late.open(workspace, id, &sealed).unwrap().as_str(), "hunter2");
        assert_eq!(late.names(), ["second", "first"]);
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_the_keys_before_it() {
        let first = line("first");
        let file = File::new(&first);
        let vault = file.vault();
        let bad = [
            String::new(),
            "first".into(),
            format!("{first}first=c2hvcnQ="),
            line("first"),
            "x".repeat(FILE_BYTES_MAX as usize + 1),
        ];
        let says =
            ["no key given", "wants `name=base64`", "not 32 bytes", "is another than before", "larger than 64 KiB"];
        for (text, says) in bad.iter().zip(says) {
            file.write(text);

            assert!(!vault.look_again());
            let refused = vault.refused().unwrap();
            assert!(refused.contains(says), "{refused}");
            assert_eq!(vault.names(), ["first"]);
        }
        std::fs::remove_file(&file.0).unwrap();
        vault.look_again();
        assert!(vault.refused().unwrap().contains("cannot be read"));

        file.write(&first);
        vault.look_again();
        assert_eq!(vault.refused(), None);
    }

    #[test]
    fn a_key_that_was_dropped_opens_for_a_minute_and_is_wiped_then() {
        let (first, second) = (line("first"), line("second"));
        let file = File::new(&first);
        let vault = file.vault();
        let (workspace, id) = (WorkspaceId::new(), SecretId::new());
        let sealed = vault.seal(workspace, id, "hunter2").unwrap();

        file.write(&second);
        vault.look_again();
        assert_eq!(vault.names(), ["second"]);
        assert_eq!(vault.open(workspace, id, &sealed).unwrap().as_str(), "hunter2");

        let keys: Vec<_> = vault
            .keys()
            .iter()
            .map(|key| {
                let dropped_at = key.dropped_at.and_then(|at| at.checked_sub(DROPPED_FOR * 2));
                let (name, cipher, digest) = (key.name.clone(), key.cipher.clone(), key.digest);
                Arc::new(MasterKey { name, cipher, digest, dropped_at })
            })
            .collect();
        *vault.keys.write().unwrap() = Arc::new(keys);
        vault.look_again();
        assert_eq!(vault.open(workspace, id, &sealed).unwrap_err().code, Code::Vault);
        assert_eq!(vault.opening(), ["second"]);
    }

    #[test]
    fn keys_come_from_one_place() {
        let settings = Settings::with(&[("master_keys", &line("a")), ("master_keys_file", "/there")]).unwrap();

        let error = Vault::from_settings(&settings).unwrap_err();

        assert!(error.message.contains("give one of them"), "{error}");
    }

    #[test]
    fn a_master_key_is_wiped_from_memory_when_it_is_dropped() {
        fn wiped<T: zeroize::ZeroizeOnDrop>() {}

        // The round keys, from which the key can be told; without the feature of `aes` this does not compile.
        wiped::<aes::Aes256>();
    }
}
