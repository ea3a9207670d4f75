//! AWS Signature Version 4, as published: a request that is `POST`ed to `/`
//! without a query, signed with its headers.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use hmac::{Hmac, Mac};
use jiff::Timestamp;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

/// Whose signature it is.
#[derive(Debug, Clone)]
pub(super) struct AwsKey {
    /// The access key's id.
    pub(super) id: String,
    /// Its secret.
    pub(super) secret: SecretString,
    /// The token of a temporary key.
    pub(super) session: Option<SecretString>,
}

/// What is signed.
pub(super) struct Signing<'a> {
    /// `redshift`.
    pub(super) service: &'a str,
    /// `us-east-1`.
    pub(super) region: &'a str,
    /// When.
    pub(super) at: Timestamp,
    /// Lower-case names and their values; `host` and `x-amz-date` are among
    /// them.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub(super) body: &'a str,
}

/// `20261122T140000Z`, which the header `x-amz-date` holds.
pub(super) fn amz_date(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The value of the header `Authorization`.
pub(super) fn authorization(key: &AwsKey, signing: &Signing) -> String {
    let mut headers: Vec<_> = signing.headers.to_vec();
    headers.sort_unstable();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let body = hex::encode(Sha256::digest(signing.body));
    let request = format!("POST\n/\n\n{lines}\n{names}\n{body}");

    let (service, region) = (signing.service, signing.region);
    let instant = amz_date(signing.at);
    let day = &instant[..8];
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let request = hex::encode(Sha256::digest(request));
    let to_sign = format!("AWS4-HMAC-SHA256\n{instant}\n{scope}\n{request}");

    let secret = Zeroizing::new(format!("AWS4{}", key.secret.expose_secret()));
    let mut signature = keyed(secret.as_bytes(), day);
    for part in [region, service, "aws4_request", &to_sign] {
        signature = keyed(&signature, part);
    }
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
        key.id,
        hex::encode(&signature[..])
    )
}

fn keyed(key: &[u8], text: &str) -> Zeroizing<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text.as_bytes());
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(authorization: &str) -> &str {
        authorization.rsplit_once("Signature=").unwrap().1
    }

    fn key(session: Option<&str>) -> AwsKey {
        AwsKey {
            id: "AKIDEXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned().into(),
            session: session.map(|token| token.to_owned().into()),
        }
    }

    /// From the suite AWS has published: `post-vanilla` and
    /// `post-x-www-form-urlencoded`.
    #[test]
    fn the_published_vectors_come_out() {
        let at: Timestamp = "2015-08-30T12:36:00Z".parse().unwrap();
        let date = ("x-amz-date", "20150830T123600Z");
        let host = ("host", "example.amazonaws.com");
        let form = ("content-type", "application/x-www-form-urlencoded");
        for (headers, body, wanted) in [
            (
                &[host, date][..],
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                &[form, host, date][..],
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let signing = Signing {
                service: "service",
                region: "us-east-1",
                at,
                headers,
                body,
            };
            assert_eq!(signature(&authorization(&key(None), &signing)), wanted);
        }
    }
}
