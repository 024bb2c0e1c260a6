//! Bytes under a passphrase: AES-256-GCM with a key that PBKDF2 derives (RFC 8018 section 5.2, with
//! HMAC-SHA-512), so that every guess at the passphrase costs what one try costs here.
//!
//! Layout, big-endian: magic, format (1), rounds (4), salt (16), nonce (12), ciphertext with tag.
//! Everything before the nonce is authenticated too.

use std::num::NonZeroU32;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    pbkdf2, rand,
};
use zeroize::Zeroizing;

const MAGIC: &[u8; 16] = b"FERROMESH-BACKUP";
const FORMAT: u8 = 1;
/// Three times what OWASP asks of this function: a backup is opened once.
const ROUNDS: NonZeroU32 = NonZeroU32::new(630_000).expect("not zero");
/// More are not ours, and would take a long time before the backup is found to be damaged.
const MOST_ROUNDS: u32 = 10_000_000;
/// Shorter passphrases are guessed whatever a try costs.
pub const SHORTEST: usize = 12;

/// Why sealed bytes cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Something else.
    #[error("it is no backup of a control plane, or of a later version")]
    NoBackup,
    /// One of both; nobody can tell which.
    #[error("the passphrase is another, or the backup is damaged")]
    Another,
}

/// Seals bytes under a passphrase.
pub fn seal(passphrase: &str, secret: Vec<u8>) -> Vec<u8> {
    seal_with(ROUNDS, passphrase, secret)
}

fn seal_with(rounds: NonZeroU32, passphrase: &str, mut body: Vec<u8>) -> Vec<u8> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).expect("the system's random source works");
    let mut sealed = header(rounds, &salt);
    // In place: the plain text is overwritten by the cipher text.
    let nonce = cipher(rounds, &salt, passphrase)
        .seal_in_place_append_tag(Aad::from(&sealed), &mut body)
        .expect("a backup is far shorter than what AES-GCM can seal");
    sealed.extend(nonce.as_ref());
    sealed.extend(body);
    sealed
}

/// Opens what [`seal`] made.
///
/// # Errors
/// [`OpenError`].
pub fn open(passphrase: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (rounds, salt, rest) = decode(sealed).ok_or(OpenError::NoBackup)?;
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(OpenError::NoBackup)?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = cipher(rounds, &salt, passphrase)
        .open_in_place(Nonce::from(nonce), Aad::from(header(rounds, &salt)), &mut body)
        .map_err(|_| OpenError::Another)?
        .len();
    body.truncate(length);
    Ok(body)
}

fn header(rounds: NonZeroU32, salt: &[u8; 16]) -> Vec<u8> {
    [&MAGIC[..], &[FORMAT], &rounds.get().to_be_bytes(), salt].concat()
}

fn decode(sealed: &[u8]) -> Option<(NonZeroU32, [u8; 16], &[u8])> {
    let rest = sealed.strip_prefix(MAGIC)?.strip_prefix(&[FORMAT])?;
    let (rounds, rest) = rest.split_first_chunk::<4>()?;
    let (salt, rest) = rest.split_first_chunk::<16>()?;
    let rounds = NonZeroU32::new(u32::from_be_bytes(*rounds)).filter(|r| r.get() <= MOST_ROUNDS)?;
    Some((rounds, *salt, rest))
}

fn cipher(rounds: NonZeroU32, salt: &[u8; 16], passphrase: &str) -> RandomizedNonceKey {
    let mut key = Zeroizing::new([0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, rounds, salt, passphrase.as_bytes(), key.as_mut());
    RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).expect("the length is AES-256's")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: NonZeroU32 = NonZeroU32::new(3).expect("not zero");

    #[test]
    fn every_changed_byte_every_cut_and_another_passphrase_are_noticed() {
        let good = seal_with(FEW, "correct horse", b"the secret".to_vec());
        assert_eq!(*open("correct horse", &good).expect("opens"), b"the secret");
        assert!(!good.windows(10).any(|window| window == b"the secret"));
        assert_eq!(open("correct house", &good), Err(OpenError::Another));
        for position in 0..good.len() {
            // Of the rounds only the lowest byte: more of them take long to be refused.
            if !(17..20).contains(&position) {
                let mut bad = good.clone();
                bad[position] ^= 1;
                assert!(open("correct horse", &bad).is_err(), "byte {position}");
            }
            assert!(open("correct horse", &good[..position]).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn rounds_without_end_are_refused_at_once() {
        let mut bad = seal_with(FEW, "correct horse", Vec::new());
        bad[17..21].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(open("correct horse", &bad), Err(OpenError::NoBackup));
    }

    #[test]
    fn one_backup_says_nothing_of_another() {
        let seal = || seal_with(FEW, "correct horse", b"the secret".to_vec());
        assert_ne!(seal(), seal());
    }
}
