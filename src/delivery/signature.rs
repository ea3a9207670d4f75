//! Proof that a request is ours: Standard Webhooks signatures, and the keyed
//! hash by which a changed body is noticed.

use crate::id::MessageId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use std::fmt;

/// The lengths Standard Webhooks allows a secret, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A signing secret, ready to sign.
#[derive(Clone)]
pub struct SigningKey {
    /// Keyed and not yet fed: cloned for each signature.
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// A text that is not a signing secret. Never says what the text was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// It is not base64.
    #[error("the signing secret is not `whsec_` followed by base64")]
    NotBase64,
    /// It is too short to be safe, or too long.
    #[error(
        "the signing secret has {bytes} bytes; Standard Webhooks asks for {} to {}",
        SECRET_BYTES.start(),
        SECRET_BYTES.end()
    )]
    Length {
        /// How many it has, decoded.
        bytes: usize,
    },
}

impl SigningKey {
    /// Reads `whsec_<base64>`, or the base64 alone.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let text = text.trim();
        let encoded = text.strip_prefix("whsec_").unwrap_or(text);
        let secret = STANDARD.decode(encoded).map_err(|_| BadSecret::NotBase64)?;
        if !SECRET_BYTES.contains(&secret.len()) {
            let bytes = secret.len();
            return Err(BadSecret::Length { bytes });
        }
        let keyed = keyed(&secret);
        Ok(Self { keyed })
    }
}

impl SigningKey {
    /// Whether one of the `signatures` of a request, as its headers give
    /// them, is made with this key: what a receiver asks.
    pub fn verifies(&self, id: &str, timestamp: &str, body: &[u8], signatures: &str) -> bool {
        let mut mac = self.keyed.clone();
        for part in [id, ".", timestamp, "."] {
            mac.update(part.as_bytes());
        }
        mac.update(body);
        signatures
            .split(' ')
            .filter_map(|signature| signature.strip_prefix("v1,"))
            .filter_map(|encoded| STANDARD.decode(encoded).ok())
            .any(|given| mac.clone().verify_slice(&given).is_ok())
    }
}

/// The `webhook-signature` of one attempt: a `v1,` for each key, in order.
pub fn sign(keys: &[SigningKey], id: &MessageId, at: Timestamp, body: &[u8]) -> String {
    let head = format!("{id}.{}.", at.as_second());
    let mut header = String::new();
    for key in keys {
        let mut mac = key.keyed.clone();
        mac.update(head.as_bytes());
        mac.update(body);
        if !header.is_empty() {
            header.push(' ');
        }
        header.push_str("v1,");
        STANDARD.encode_string(mac.finalize().into_bytes(), &mut header);
    }
    header
}

/// HMAC-SHA-256 of a body under the installation's key: equal for equal
/// bodies, and says nothing about them.
pub fn body_hash(key: &[u8; 32], body: &[u8]) -> [u8; 32] {
    let mut mac = keyed(key);
    mac.update(body);
    mac.finalize().into_bytes().into()
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BatchPath, RunId};
    use standardwebhooks::Webhook;

    /// The secret of the specification's own examples.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn message_id() -> MessageId {
        let run: RunId = "winback@20261122T140000Z".parse().unwrap();
        MessageId::of(&run, &BatchPath::whole(1), 0)
    }

    #[test]
    fn the_published_example_gives_the_published_signature() {
        // Ours names a message by a UUID only, so the example's text is fed
        // to the same keyed state.
        let mut mac = SigningKey::parse(SECRET).unwrap().keyed;
        mac.update(b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}");
        assert_eq!(
            STANDARD.encode(mac.finalize().into_bytes()),
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn an_independent_implementation_makes_the_same_signature() {
        let at: Timestamp = "2026-11-22T14:00:00.9Z".parse().unwrap();
        let id = message_id();
        let body = "{\"name\":\"Zoë\"}";
        let keys = [SECRET, OTHER].map(|s| SigningKey::parse(s).unwrap());
        let theirs = [SECRET, OTHER].map(|secret| {
            Webhook::new(secret)
                .unwrap()
                .sign(&id.to_string(), at.as_second(), body.as_bytes())
                .unwrap()
        });
        assert_eq!(sign(&keys, &id, at, body.as_bytes()), theirs.join(" "));
    }

    #[test]
    fn a_request_verifies_with_either_secret_and_only_as_it_was_sent() {
        let at: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        let keys = [SECRET, OTHER].map(|s| SigningKey::parse(s).unwrap());
        let id = message_id().to_string();
        let seconds = at.as_second().to_string();
        let both = sign(&keys, &message_id(), at, b"{}");
        for key in &keys {
            assert!(key.verifies(&id, &seconds, b"{}", &both));
            assert!(!key.verifies(&id, &seconds, b"{ }", &both));
            assert!(!key.verifies(&id, "0", b"{}", &both));
            assert!(!key.verifies("other", &seconds, b"{}", &both));
        }
        let first = sign(&keys[..1], &message_id(), at, b"{}");
        assert!(!keys[1].verifies(&id, &seconds, b"{}", &first));
    }

    #[test]
    fn a_secret_is_read_with_and_without_its_prefix() {
        let bare = SECRET.trim_start_matches("whsec_");
        assert!(SigningKey::parse(bare).is_ok());
        assert!(SigningKey::parse(&format!("{SECRET}\n")).is_ok());
        assert_eq!(
            SigningKey::parse("whsec_$").unwrap_err(),
            BadSecret::NotBase64
        );
        let short = SigningKey::parse("whsec_c2hvcnQ=").unwrap_err();
        assert_eq!(short, BadSecret::Length { bytes: 5 });
    }

    #[test]
    fn neither_debug_nor_an_error_shows_a_secret() {
        let shown = format!(
            "{:?} {} {}",
            SigningKey::parse(SECRET).unwrap(),
            SigningKey::parse("whsec_not-a-secret").unwrap_err(),
            SigningKey::parse("whsec_c2hvcnQ=").unwrap_err(),
        );
        for secret in ["MfKQ", "not-a-secret", "c2hvcnQ", "short"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn a_body_hash_depends_on_key_and_body() {
        let hash = body_hash(&[1; 32], b"a");
        assert_eq!(hash, body_hash(&[1; 32], b"a"));
        assert_ne!(hash, body_hash(&[2; 32], b"a"));
        assert_ne!(hash, body_hash(&[1; 32], b"b"));
    }
}
