//! Bytes that only this authority can read and nobody can change unnoticed: AES-256-GCM under a key
//! of its own.
//!
//! Layout of a sealed document, big-endian: magic, format version (1), length and bytes of the
//! trust domain, authority id (16), write sequence (8), nonce (12), ciphertext with tag. Everything
//! before the nonce is authenticated, so a document of another authority or trust domain does not
//! open even under the same key.
//!
//! The key is kept beside the sealed document, so it protects copies of one of the two, not a
//! stolen disk; it is separate so that it can be kept elsewhere.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use zeroize::Zeroizing;

const MAGIC: &[u8; 14] = b"FERROMESH-SEAL";
const FORMAT: u8 = 1;
const KEY_LEN: usize = 32;

/// Why sealed bytes or their key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("expected a key of 32 bytes, got {0}")]
    KeyLength(usize),
    #[error("{0}")]
    Damaged(&'static str),
    #[error("belongs to trust domain {got:?}, expected {expected:?}")]
    TrustDomain { got: String, expected: String },
}

/// What is authenticated along with the secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Label {
    pub(crate) trust_domain: String,
    pub(crate) authority_id: [u8; 16],
    /// Rises with every write.
    pub(crate) sequence: u64,
}

impl Label {
    /// A label that no other authority has.
    pub(crate) fn new(trust_domain: &str) -> Self {
        let mut authority_id = [0; 16];
        rand::fill(&mut authority_id).expect("the system's random source works");
        Self { trust_domain: trust_domain.to_owned(), authority_id, sequence: 0 }
    }

    /// The label of the next write.
    pub(crate) fn next(&self) -> Self {
        Self { sequence: self.sequence + 1, ..self.clone() }
    }

    fn encode(&self) -> Vec<u8> {
        let length =
            u16::try_from(self.trust_domain.len()).expect("a trust domain has at most 255 bytes");
        let mut bytes = MAGIC.to_vec();
        bytes.push(FORMAT);
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.trust_domain.as_bytes());
        bytes.extend(self.authority_id);
        bytes.extend(self.sequence.to_be_bytes());
        bytes
    }

    /// Splits a document into its label and the rest, or `None` when it is too short or of another
    /// format.
    fn decode(document: &[u8]) -> Option<(Self, &[u8])> {
        let rest = document.strip_prefix(MAGIC)?.strip_prefix(&[FORMAT])?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (trust_domain, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let (authority_id, rest) = rest.split_first_chunk::<16>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let trust_domain = String::from_utf8(trust_domain.to_vec()).ok()?;
        Some((
            Self {
                trust_domain,
                authority_id: *authority_id,
                sequence: u64::from_be_bytes(*sequence),
            },
            rest,
        ))
    }
}

/// The key that seals.
pub(crate) struct SealingKey {
    bytes: Zeroizing<[u8; KEY_LEN]>,
    cipher: RandomizedNonceKey,
}

impl SealingKey {
    /// Makes a key.
    pub(crate) fn generate() -> Self {
        let mut bytes = Zeroizing::new([0u8; KEY_LEN]);
        rand::fill(bytes.as_mut()).expect("the system's random source works");
        Self::new(bytes)
    }

    /// Takes over a key that [`bytes`](Self::bytes) told.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let key: [u8; KEY_LEN] = bytes.try_into().map_err(|_| SealError::KeyLength(bytes.len()))?;
        Ok(Self::new(Zeroizing::new(key)))
    }

    fn new(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        let cipher =
            RandomizedNonceKey::new(&AES_256_GCM, bytes.as_ref()).expect("the length is AES-256's");
        Self { bytes, cipher }
    }

    /// The key itself, for whoever keeps it.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Seals `secret` under `label`.
    pub(crate) fn seal(&self, label: &Label, secret: &[u8]) -> Vec<u8> {
        let mut document = label.encode();
        let mut body = secret.to_vec();
        // In place: the plain text is overwritten by the cipher text.
        let nonce = self
            .cipher
            .seal_in_place_append_tag(Aad::from(&document), &mut body)
            .expect("the state is far shorter than what AES-GCM can seal");
        document.extend(nonce.as_ref());
        document.extend(body);
        document
    }

    /// Opens a sealed document of `trust_domain`.
    pub(crate) fn open(
        &self,
        sealed: &[u8],
        trust_domain: &str,
    ) -> Result<(Label, Zeroizing<Vec<u8>>), SealError> {
        let (label, rest) = Label::decode(sealed)
            .ok_or(SealError::Damaged("not a sealed document, or cut short"))?;
        let (nonce, body) =
            rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Damaged("cut short"))?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .cipher
            .open_in_place(Nonce::from(nonce), Aad::from(label.encode()), &mut body)
            .map_err(|_| {
                SealError::Damaged(
                    "does not open with the key beside it: it is damaged or the key is another's",
                )
            })?
            .len();
        body.truncate(length);
        if label.trust_domain != trust_domain {
            return Err(SealError::TrustDomain {
                got: label.trust_domain,
                expected: trust_domain.to_owned(),
            });
        }
        Ok((label, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label { trust_domain: "cluster.local".into(), authority_id: [7; 16], sequence: 3 }
    }

    #[test]
    fn what_is_sealed_opens_again_with_the_same_key() {
        let key = SealingKey::generate();
        let sealed = key.seal(&label(), b"the secret");
        let again = SealingKey::from_bytes(key.bytes()).unwrap();
        let (read_label, secret) = again.open(&sealed, "cluster.local").unwrap();
        assert_eq!((read_label, secret.as_slice()), (label(), b"the secret".as_slice()));
        assert!(!sealed.windows(10).any(|w| w == b"the secret"));
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let key = SealingKey::generate();
        let good = key.seal(&label(), b"the secret");
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert!(key.open(&bad, "cluster.local").is_err(), "byte {position}");
            assert!(key.open(&good[..position], "cluster.local").is_err(), "cut at {position}");
        }
    }

    #[test]
    fn a_nonce_is_never_used_twice() {
        let key = SealingKey::generate();
        assert_ne!(key.seal(&label(), b"the secret"), key.seal(&label(), b"the secret"));
    }

    #[test]
    fn a_foreign_key_or_trust_domain_does_not_open() {
        let key = SealingKey::generate();
        let sealed = key.seal(&label(), b"the secret");
        assert!(SealingKey::generate().open(&sealed, "cluster.local").is_err());
        assert!(matches!(key.open(&sealed, "other.domain"), Err(SealError::TrustDomain { .. })));
        assert!(matches!(SealingKey::from_bytes(&[1; 31]), Err(SealError::KeyLength(31))));
    }
}
