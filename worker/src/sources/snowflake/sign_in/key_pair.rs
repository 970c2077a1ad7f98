//! Key pairs: reading and drawing keys, the ALTER USER script, and tokens signed with them.
//!
//! A user of Snowflake has two slots for public keys, so a connection may hold two private ones: while keys are
//! turned over, the one that is refused gives way to the other.

use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL};
use chrono::{DateTime, TimeDelta, Utc};
use freshet_core::clock::Clock;
use freshet_core::error::{Code, Error, Result};
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::rand_core::OsRng;
use rsa::signature::{RandomizedSigner, SignatureEncoding};
use rsa::traits::PublicKeyParts;
use rsa::{RsaPrivateKey, RsaPublicKey};
use secrecy::SecretString;
use serde_json::json;
use sha2::{Digest, Sha256};

/// Bits of a key that is drawn here, and the least of one that is given.
const KEY_BITS: usize = 2048;
/// How long a token is used. Snowflake takes one for an hour after it was signed, whatever it says itself.
const TOKEN_MINUTES: i64 = 50;
/// How far our clock may be ahead of Snowflake's.
const CLOCK_SKEW_S: i64 = 30;

/// One of the two places of a user's public keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// `RSA_PUBLIC_KEY`
    First,
    /// `RSA_PUBLIC_KEY_2`
    Second,
}

impl Slot {
    /// The property of the user.
    #[must_use]
    pub fn property(self) -> &'static str {
        match self {
            Self::First => "RSA_PUBLIC_KEY",
            Self::Second => "RSA_PUBLIC_KEY_2",
        }
    }
}

/// A private key, and the fingerprint that Snowflake shows for its public half.
pub struct KeyPair {
    private: RsaPrivateKey,
    fingerprint: String,
}

impl KeyPair {
    /// Reads a private key: PKCS#8 in PEM, encrypted if there is a passphrase.
    ///
    /// # Errors
    /// `request.invalid` on `pointer`, without a word of the key.
    pub fn parse(pem: &str, passphrase: Option<&str>, pointer: &str) -> Result<Self> {
        let encrypted = pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----");
        let private = match (encrypted, passphrase) {
            (true, Some(passphrase)) => RsaPrivateKey::from_pkcs8_encrypted_pem(pem.trim(), passphrase).map_err(|_| {
                Error::invalid(pointer, "cannot be opened: the passphrase is wrong, or it is not a PKCS#8 RSA key")
            }),
            (true, None) => Err(Error::invalid(pointer, "is encrypted, and there is no passphrase")),
            (false, _) => RsaPrivateKey::from_pkcs8_pem(pem.trim()).map_err(|_| {
                Error::invalid(pointer, "must be an RSA key in PEM: `-----BEGIN PRIVATE KEY-----` (PKCS#8)")
            }),
        }?;
        if private.n().bits() < KEY_BITS {
            return Err(Error::invalid(pointer, format!("must have {KEY_BITS} bits at least")));
        }
        Self::of(private)
    }

    /// Draws a new key of 2048 bits. Takes about a second: run it off the async threads.
    ///
    /// # Errors
    /// `platform.internal` when the machine has no randomness to give.
    pub fn draw() -> Result<Self> {
        Self::of(RsaPrivateKey::new(&mut OsRng, KEY_BITS).map_err(|error| broken("a key cannot be drawn", error))?)
    }

    fn of(private: RsaPrivateKey) -> Result<Self> {
        let public = RsaPublicKey::from(&private)
            .to_public_key_der()
            .map_err(|error| broken("the public key cannot be written", error))?;
        let fingerprint = format!("SHA256:{}", BASE64.encode(Sha256::digest(public.as_bytes())));
        Ok(Self { private, fingerprint })
    }

    /// The private key in PEM, for the vault.
    ///
    /// # Errors
    /// `platform.internal` if it cannot be written.
    pub fn private_pem(&self) -> Result<SecretString> {
        let pem = self.private.to_pkcs8_pem(LineEnding::LF);
        pem.map(|pem| SecretString::from(pem.as_str())).map_err(|error| broken("the key cannot be written", error))
    }

    /// `SHA256:` and the digest of the public key, as `DESCRIBE USER` shows it.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The statement that an administrator runs once: it gives the public key to the user.
    ///
    /// # Errors
    /// `platform.internal` if the public key cannot be written.
    pub fn alter_user(&self, user: &str, slot: Slot) -> Result<String> {
        let pem = RsaPublicKey::from(&self.private)
            .to_public_key_pem(LineEnding::LF)
            .map_err(|error| broken("the public key cannot be written", error))?;
        let key: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let user = user.replace('"', "\"\"");
        Ok(format!("ALTER USER \"{user}\" SET {} = '{key}';\n", slot.property()))
    }

    /// A token that says `account.user`, good for an hour from `now` on.
    ///
    /// # Errors
    /// `platform.internal` if signing fails.
    pub fn token(&self, account: &str, user: &str, now: DateTime<Utc>) -> Result<SecretString> {
        let subject = format!("{account}.{user}");
        let issued = now.timestamp() - CLOCK_SKEW_S;
        let claims = json!({
            "iss": format!("{subject}.{}", self.fingerprint),
            "sub": subject,
            "iat": issued,
            "exp": issued + 3_600,
        });
        let header = BASE64_URL.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", BASE64_URL.encode(claims.to_string()));
        let signature = SigningKey::<Sha256>::new(self.private.clone())
            .try_sign_with_rng(&mut OsRng, signed.as_bytes())
            .map_err(|error| broken("a token cannot be signed", error))?;
        Ok(SecretString::from(format!("{signed}.{}", BASE64_URL.encode(signature.to_bytes()))))
    }
}

fn broken(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Code::Internal, what).caused_by(error)
}

/// The account's name as a token wants it: upper case, a locator without its region.
#[must_use]
pub fn account_of_token(account: &str) -> String {
    account.split('.').next().unwrap_or(account).to_uppercase()
}

/// Signs tokens for one user, and keeps the last one for 50 minutes.
pub struct Signer {
    account: String,
    user: String,
    keys: Vec<KeyPair>,
    state: Mutex<SignerState>,
}

#[derive(Default)]
struct SignerState {
    /// Which of the keys signs.
    key: usize,
    token: Option<(SecretString, DateTime<Utc>)>,
}

impl Signer {
    /// A signer with one key or two; `account` in any of its forms, `user` as `SHOW USERS` shows its login name.
    #[must_use]
    pub fn new(account: &str, user: &str, keys: Vec<KeyPair>) -> Self {
        let (account, user) = (account_of_token(account), user.to_uppercase());
        Self { account, user, keys, state: Mutex::default() }
    }

    /// The token in use, or a new one.
    ///
    /// # Errors
    /// `platform.internal` if signing fails.
    pub fn token(&self, clock: &Clock) -> Result<SecretString> {
        let now = clock.now();
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((token, since)) = &state.token
            && (TimeDelta::zero()..TimeDelta::minutes(TOKEN_MINUTES)).contains(&(now - *since))
        {
            return Ok(token.clone());
        }
        let key = self.keys.get(state.key).ok_or_else(|| Error::new(Code::Internal, "a signer has no key"))?;
        let token = key.token(&self.account, &self.user, now)?;
        state.token = Some((token.clone(), now));
        Ok(token)
    }

    /// Takes note that the token was refused: the next is signed anew, with the other key if there are two.
    pub fn refused(&self) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.token = None;
        state.key = (state.key + 1) % self.keys.len().max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsa::pkcs1v15::VerifyingKey;
    use rsa::signature::Verifier;
    use secrecy::ExposeSecret;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn parts(token: &SecretString) -> (String, serde_json::Value, Vec<u8>) {
        let parts: Vec<_> = token.expose_secret().split('.').collect();
        let claims = serde_json::from_slice(&BASE64_URL.decode(parts[1]).unwrap()).unwrap();
        (format!("{}.{}", parts[0], parts[1]), claims, BASE64_URL.decode(parts[2]).unwrap())
    }

    #[test]
    fn a_token_says_who_and_is_signed_with_the_key_that_the_script_gives_to_the_user() {
        let key = KeyPair::draw().unwrap();

        let token = key.token("MYORG-MYACCT", "JDOE", at("2026-11-23T10:00:00Z")).unwrap();
        let script = key.alter_user("JDOE", Slot::Second).unwrap();

        let (signed, claims, signature) = parts(&token);
        assert_eq!(claims["sub"], "MYORG-MYACCT.JDOE");
        assert_eq!(claims["iss"], format!("MYORG-MYACCT.JDOE.{}", key.fingerprint()));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3_600);
        let public = script.split('\'').nth(1).unwrap();
        assert!(script.starts_with("ALTER USER \"JDOE\" SET RSA_PUBLIC_KEY_2 = '"));
        let public = BASE64.decode(public).unwrap();
        assert_eq!(key.fingerprint(), format!("SHA256:{}", BASE64.encode(Sha256::digest(&public))));
        let public: RsaPublicKey = rsa::pkcs8::DecodePublicKey::from_public_key_der(&public).unwrap();
        let verifier = VerifyingKey::<Sha256>::new(public);
        verifier.verify(signed.as_bytes(), &signature.as_slice().try_into().unwrap()).unwrap();
    }

    #[test]
    fn a_key_reads_back_plain_and_encrypted() {
        let key = KeyPair::draw().unwrap();
        let plain = key.private_pem().unwrap();
        let encrypted = key.private.to_pkcs8_encrypted_pem(OsRng, "hunter2", LineEnding::LF).unwrap();
        let parse = |pem: &str, passphrase| KeyPair::parse(pem, passphrase, "/p").map(|key| key.fingerprint);

        assert_eq!(parse(plain.expose_secret(), None).unwrap(), key.fingerprint);
        assert_eq!(parse(&encrypted, Some("hunter2")).unwrap(), key.fingerprint);
        for (pem, passphrase) in [(encrypted.as_str(), None), (&encrypted, Some("wrong")), ("nonsense", None)] {
            let error = parse(pem, passphrase).unwrap_err();
            assert_eq!(error.code, Code::Invalid);
            assert!(!error.chain().contains("hunter2"));
        }
    }

    /// Made by the command of Snowflake's documents, `openssl pkcs8 -topk8 -v2 des3`, with OpenSSL 3; for tests alone.
    const OPENSSL_KEY: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIIFHDBOBgkqhkiG9w0BBQ0wQTApBgkqhkiG9w0BBQwwHAQIUkSgq8VRo0QCAggA
MAwGCCqGSIb3DQIJBQAwFAYIKoZIhvcNAwcECHdx82SkhCUgBIIEyDfHbUKonqON
+jeoFTlumrFaDYufWG+AU+no5j/f5gXA5rjm7e5P3JxTGMjVMv5Bt2rAXnl2kPRB
8eFIge0iD/pYUPYB6vu5hQkm5lf0A6qYTf58+YS4OZAXX1JFydP8AeuKNXBxqq0a
CrS2JjrgHG5oAft0n9y4CPbevPBt1w4NY6snAZgs1mTIm4RVscbImP1HtNSGOocD
tbJ4v+Gr2VOpz1G8UE0zEtBTsXyay/TIgJwPkSVaR+ks5aodWJZhZGkXMVviEwLB
9cFtp8pHvhpPSc5yiHK/AVKPLsROBHwSSZIuY5YfOVtlzP9kIfH5DVQhY1grm1vn
cUMs0/kEOmpmDCArbsYaN5wOesga/MoeAZtMFI0yikaWiJFNezHvOfjESwzeXqhd
CmK5il3fBy9nmeHzUYU2iIsHx9CdLHOSBNm1QZNNMJ0+OaEXhDABj3pj/Q7uefaA
MUDDWDUL0B7F98ICHt+TGAYYxbKTmwVosQam+3m1RmsNMwNcA+0medTXbqP7Zbsl
CfqqQiRRNrXPCYVSrNYArjetf2SmX521LPldUqxW3d9JVSJ2SryIyww7H8HMs6ii
tyxlBJnhX1GrVkvi89ASfpv3T43fX9byqXJjTPhUumTZeDMHU8UTPD72+Gx36KSa
cj09VX3ORvCeRxlqMfvFk2vBcSMvUDUOv8zt4gLJX4nRPNKeybkqaryrIDIRcxUC
RbSw5K5Eueuw5zeIMEZ5xqQPrU0/Wb05Ip+7RTnn1A+Hd83UYJ037HIk/WVbLFlk
iz09p3yguHpmGWTBKRcgs/t/h1S4lx6klLmLA3Rxt/6Ey8YCO/vipShzeCk5dk5C
GpD9plS6Ls/HWuKspx/A8UgEUEi0oJQxlyeAWrNQUjdqyCKY3+47kIgdgKMsdPOC
9i+8bvKdHpfgZv8T1y+z9/2g06Zq6z5YJ4Clde4/TVI1Kjt1wcUUu0S0ve4RNoAl
+HxXM8kWfy36P9E7BZTpJiVqlb/6wKN9ubLC1icXeQGvT8AU2FNNQrg/kdPu/Y9i
7Bm0x6XVjVtZqP6Vv9oicfT66OVt903pkRdacxDkGs5cKMIfPYZXdST61GhDHHE4
txO8pvDJMwPzwT/WUnucXPGlOfrMgQeEVWz36hQxnURUczU2+2Z8pRV/lhRjkG/F
m/4+H2kwKN2Afc4j0UfBvVWM40XKJYal9Gnz7/eroBhGg/IT6jFtGARkfz/urpC4
HHyKQtd641rORigTxoDNEDnDRfefEePu1LdgagICZqHYlduo4IDCk8DqRnOoYTST
GIAHIu5b1rlOlaSIdiLPWsfcRkScUVXf4gffNo+Zyo3xu10GNdgWOJHnoxvBistS
3/os6cSqXUOdystMI9rG5Q3HuscGzzg3G0Lz4QelAFxcU/9YT9OYjDBotWCXAujX
Y6moxlMMjh4NgJRpnsgp7vBUhfk3sz+6hVk9y57//+T6g1mSFYaPbaqtQd21pjzZ
mUt43pSdF/+pdXjsUEtFvas/PXo7D1RpY8q5abSxMHb9otyznYeNrB4WVAN4MF0f
HuXKLuFuh/WHKvxWzkY3N1/9uwJ+3Ola/WsqZraitT8MVow+qOpbcZ2M0dOgrdtE
FxHedi/Rh3Ob6B53oQE9Yg==
-----END ENCRYPTED PRIVATE KEY-----";

    #[test]
    fn a_key_made_with_openssl_has_the_fingerprint_that_openssl_says() {
        let key = KeyPair::parse(OPENSSL_KEY, Some("hunter2"), "/p").unwrap();

        assert_eq!(key.fingerprint(), "SHA256:RknFqRdojZQ7s5GhZoBvG6rZY1B7yBKIYyxYZm7/VB8=");
    }

    #[test]
    fn a_token_is_kept_for_fifty_minutes_and_the_other_key_takes_over_when_one_is_refused() {
        let (first, second) = (KeyPair::draw().unwrap(), KeyPair::draw().unwrap());
        let names = [first.fingerprint.clone(), second.fingerprint.clone()];
        let clock = Clock::standing(at("2026-11-23T10:00:00Z"));
        let signer = Signer::new("xy12345.eu-central-1", "jdoe", vec![first, second]);
        let issuer = || parts(&signer.token(&clock).unwrap()).1["iss"].as_str().unwrap().to_owned();
        let token = || signer.token(&clock).unwrap().expose_secret().to_owned();

        let early = token();
        clock.wind(TimeDelta::minutes(49));
        assert_eq!(token(), early);
        clock.wind(TimeDelta::minutes(2));
        assert_ne!(token(), early);

        assert_eq!(issuer(), format!("XY12345.JDOE.{}", names[0]));
        signer.refused();
        assert_eq!(issuer(), format!("XY12345.JDOE.{}", names[1]));
    }
}
