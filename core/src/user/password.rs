//! Passwords: Argon2id, and what is too easy to guess.

use std::sync::LazyLock;

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::error::{Code, Error, Result};
use crate::settings::Secret;

/// Characters of a password, at least and at most (the upper bound: nobody has us hash a megabyte).
const LENGTH: std::ops::RangeInclusive<usize> = 12..=256;
/// KiB, passes and lanes: the first choice of OWASP's password storage cheat sheet.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Passwords hashed at once: each takes a core and its memory.
static ROOM: Semaphore = Semaphore::const_new(2);
/// What a password is compared with where there is none, so that it takes as long.
static NOBODYS: LazyLock<String> = LazyLock::new(|| hash_now("nobody's").unwrap_or_default());

fn hasher() -> Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| internal())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_now(password: &str) -> Result<String> {
    let salt = SaltString::generate(&mut OsRng);
    let hashed = hasher()?.hash_password(password.as_bytes(), &salt).map_err(|_| internal())?;
    Ok(hashed.to_string())
}

fn internal() -> Error {
    Error::new(Code::Internal, "a password cannot be hashed")
}

/// What is stored of a password.
///
/// # Errors
/// `request.invalid` for one that is too short, too long or too easy to guess; `hints` is what belongs to the person.
pub(crate) async fn hash(password: &Secret, hints: &[&str]) -> Result<String> {
    refuse_weak(password.expose(), hints)?;
    let password = password.clone();
    blocking(move || hash_now(password.expose())).await?
}

/// Whether it is the password; where there is none it takes as long to say no.
///
/// # Errors
/// [`Code::Internal`] when the process is ending.
pub(crate) async fn verify(password: &Secret, stored: Option<String>) -> Result<bool> {
    let password = password.clone();
    blocking(move || {
        let parsed = stored.as_deref().unwrap_or(&NOBODYS);
        let same = PasswordHash::new(parsed)
            .and_then(|parsed| {
                hasher().map(|hasher| (hasher, parsed)).map_err(|_| argon2::password_hash::Error::Algorithm)
            })
            .and_then(|(hasher, parsed)| hasher.verify_password(password.expose().as_bytes(), &parsed));
        same.is_ok() && stored.is_some()
    })
    .await
}

/// Passwords that this process has hashed or compared, for tests that count instead of stopping the time.
#[cfg(feature = "testing")]
pub static HASHED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let _room = ROOM.acquire().await.map_err(|_| internal())?;
    #[cfg(feature = "testing")]
    HASHED.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    tokio::task::spawn_blocking(work).await.map_err(|error| internal().caused_by(error))
}

fn refuse_weak(password: &str, hints: &[&str]) -> Result<()> {
    let length = password.chars().count();
    if !LENGTH.contains(&length) {
        let told = format!("must have {} to {} characters", LENGTH.start(), LENGTH.end());
        return Err(Error::invalid("/password", told));
    }
    // Of a long one the beginning is enough to judge by, and bounds the time it takes.
    let beginning: String = password.chars().take(72).collect();
    let is_weak = u8::from(zxcvbn::zxcvbn(&beginning, hints).score()) < 3;
    if is_weak || left_without(&beginning, hints) < 8 {
        return Err(Error::invalid(
            "/password",
            "is among the first that are tried; several unrelated words are better",
        ));
    }
    Ok(())
}

/// What is left, in letters and digits, when the parts of a name and of an address are taken out: whoever guesses knows
/// those. All of it, in characters, when there are none of them in it.
fn left_without(password: &str, hints: &[&str]) -> usize {
    let hints = hints.iter().map(|hint| hint.to_lowercase()).collect::<Vec<_>>();
    let mut parts: Vec<_> = hints.iter().flat_map(|hint| hint.split(|sign: char| !sign.is_alphanumeric())).collect();
    parts.retain(|part| part.chars().count() >= 3);
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    let whole = password.to_lowercase();
    let left = parts.iter().fold(whole.clone(), |left, part| left.replace(part, " "));
    left.chars().filter(|sign| left == whole || sign.is_alphanumeric()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_again_and_another_is_not() {
        let password: Secret = "correct battery, horse".parse().unwrap();
        let stored = hash(&password, &[]).await.unwrap();

        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify(&password, Some(stored.clone())).await.unwrap());
        assert!(!verify(&"correct battery, house".parse().unwrap(), Some(stored)).await.unwrap());
        assert!(!verify(&password, None).await.unwrap());
        assert!(!verify(&"nobody's".parse().unwrap(), None).await.unwrap());
    }

    #[test]
    fn what_is_tried_first_is_refused() {
        for weak in ["short", "password1234", "123456789012", "qwertyuiopasdf", "aaaaaaaaaaaaaaaa", "letmeinletmein"] {
            assert!(refuse_weak(weak, &[]).is_err(), "{weak}");
        }
        assert!(refuse_weak("ada.lovelace@acme", &["ada.lovelace@acme.example", "Ada Lovelace"]).is_err());
        assert!(refuse_weak("Lovelace-Ada-1815", &["ada.lovelace@acme.example", "Ada Lovelace"]).is_err());
        refuse_weak("ada likes violet tractors", &["ada.lovelace@acme.example", "Ada Lovelace"]).unwrap();
        refuse_weak("%)&!=;(:-\"§/?*", &["ada.lovelace@acme.example"]).unwrap();
        assert!(refuse_weak(&"x".repeat(300), &[]).is_err());
        refuse_weak("violet tractor mumbling 9", &[]).unwrap();
    }
}
