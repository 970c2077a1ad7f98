//! Codes of a second factor (RFC 6238): six digits, 30 s, SHA-1, as every app has them.

use totp_rs::{Algorithm, Secret as TotpSecret, TOTP};

use crate::error::{Code, Error, Result};

const DIGITS: usize = 6;
const STEP_S: u64 = 30;
/// Steps before and after the present one that are taken: clocks differ.
const SKEW: i64 = 1;
/// Who gives the factor, as apps show it.
const ISSUER: &str = "Freshet";

/// Draws a secret, in base 32.
pub(super) fn draw() -> String {
    TotpSecret::generate_secret().to_encoded().to_string()
}

/// The address that apps read from a QR code.
pub(super) fn url(secret: &str, account: &str) -> Result<String> {
    // A colon would part the label.
    Ok(made(secret, &account.replace(':', " "))?.get_url())
}

/// The step that this code is of, if it is of one near the present.
pub(super) fn step_of(secret: &str, code: &str, now_s: i64) -> Result<Option<i64>> {
    let totp = made(secret, "account")?;
    let present = now_s.div_euclid(STEP_S as i64);
    let code: String = code.chars().filter(|letter| !letter.is_whitespace()).collect();
    let near = present.saturating_sub(SKEW).max(0)..=present + SKEW;
    Ok(near.into_iter().find(|step| {
        let wanted = totp.generate(step.unsigned_abs() * STEP_S);
        bool::from(subtle::ConstantTimeEq::ct_eq(wanted.as_bytes(), code.as_bytes()))
    }))
}

fn made(secret: &str, account: &str) -> Result<TOTP> {
    let told = || Error::new(Code::Internal, "the second factor's secret does not read");
    let bytes = TotpSecret::Encoded(secret.to_owned()).to_bytes().map_err(|_| told())?;
    TOTP::new(Algorithm::SHA1, DIGITS, 1, STEP_S, bytes, Some(ISSUER.to_owned()), account.to_owned())
        .map_err(|_| told())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B: the secret `12345678901234567890`, of which the last six digits are shown.
    #[test]
    fn the_codes_are_those_of_the_rfc() {
        let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

        assert_eq!(step_of(secret, "287082", 59).unwrap(), Some(1));
        assert_eq!(step_of(secret, "081 804", 1_111_111_109).unwrap(), Some(37_037_036));
        assert_eq!(step_of(secret, "081804", 1_111_111_109 + 90).unwrap(), None);
        assert_eq!(step_of(secret, "", 59).unwrap(), None);
    }

    #[test]
    fn a_drawn_secret_reads_back() {
        let secret = draw();

        assert!(url(&secret, "ada@acme.example").unwrap().starts_with("otpauth://totp/Freshet:ada"));
        assert_eq!(step_of(&secret, "nothing", 59).unwrap(), None);
    }
}
