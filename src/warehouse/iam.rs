//! Temporary credentials for Redshift, in exchange for a signature: three
//! requests of AWS's interface, made by hand.
//!
//! - Serverless: `GetCredentials`, JSON 1.1.
//! - Provisioned: `GetClusterCredentials` for a named user,
//!   `GetClusterCredentialsWithIAM` for the caller's own, form in, XML out.

use super::errors::error;
use super::login::{Credentials, IamLogin, IamTarget};
use super::options::ServerOptions;
use super::sigv4::{AwsKey, Signing, amz_date, authorization};
use crate::run::{Clock as _, SystemClock, WarehouseError, WarehouseErrorClass as C};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::time::Duration;
use url::Url;

/// How long the whole exchange may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How long the credentials are asked for, in seconds: the most AWS gives.
const LIFE_SECONDS: u32 = 3_600;

/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A request, before it is signed.
struct Question {
    service: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
}

/// Asks AWS; returns what to log in with and how long it holds from now.
pub(super) async fn ask_aws(
    login: &IamLogin,
    server: &ServerOptions,
) -> Result<(Credentials, Duration), WarehouseError> {
    let key = key_of_environment()?;
    let asking = post(login, &key, question(login, &server.database));
    match tokio::time::timeout(LIMIT, asking).await {
        Ok(answer) => {
            let (credentials, until) = read_answer(&login.target, &answer?)?;
            let life = until.duration_since(SystemClock.now());
            let life = Duration::try_from(life).unwrap_or(Duration::ZERO);
            Ok((credentials, life))
        }
        Err(_) => Err(error(C::Lost, "AWS did not give credentials within 10 s")),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a key of AWS's is renewed there by others, so it is read each time"
)]
fn key_of_environment() -> Result<AwsKey, WarehouseError> {
    let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let needed = |name: &'static str| {
        read(name).ok_or_else(|| {
            let message = format!("`auth.iam` needs a key of AWS's in the environment; set {name}");
            error(C::Configuration, message)
        })
    };
    Ok(AwsKey {
        id: needed("AWS_ACCESS_KEY_ID")?,
        secret: needed("AWS_SECRET_ACCESS_KEY")?.into(),
        session: read("AWS_SESSION_TOKEN").map(SecretString::from),
    })
}

fn question(login: &IamLogin, database: &str) -> Question {
    let (cluster, user) = match &login.target {
        IamTarget::Workgroup(workgroup) => {
            let body = serde_json::json!({
                "workgroupName": workgroup,
                "dbName": database,
                "durationSeconds": LIFE_SECONDS,
            });
            let target = "RedshiftServerless.GetCredentials";
            return Question {
                service: "redshift-serverless",
                headers: vec![
                    ("content-type", "application/x-amz-json-1.1".to_owned()),
                    ("x-amz-target", target.to_owned()),
                ],
                body: body.to_string(),
            };
        }
        IamTarget::Cluster { cluster, user } => (cluster, user),
    };
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    let action = match user {
        Some(_) => "GetClusterCredentials",
        None => "GetClusterCredentialsWithIAM",
    };
    form.append_pair("Action", action)
        .append_pair("Version", "2012-12-01")
        .append_pair("ClusterIdentifier", cluster)
        .append_pair("DbName", database)
        .append_pair("DurationSeconds", &LIFE_SECONDS.to_string());
    if let Some(user) = user {
        form.append_pair("DbUser", user);
    }
    let kind = "application/x-www-form-urlencoded; charset=utf-8";
    Question {
        service: "redshift",
        headers: vec![("content-type", kind.to_owned())],
        body: form.finish(),
    }
}

/// The headers, signature and all.
fn signed(
    question: &Question,
    host: &str,
    region: &str,
    key: &AwsKey,
    at: Timestamp,
) -> Vec<(&'static str, String)> {
    let mut headers = question.headers.clone();
    headers.push(("host", host.to_owned()));
    headers.push(("x-amz-date", amz_date(at)));
    if let Some(session) = &key.session {
        headers.push(("x-amz-security-token", session.expose_secret().to_owned()));
    }
    let shown: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let authorization = authorization(
        key,
        &Signing {
            service: question.service,
            region,
            at,
            headers: &shown,
            body: &question.body,
        },
    );
    headers.push(("authorization", authorization));
    headers
}

/// Where a service is asked in a region; `auth.iam.endpoint` is for the
/// partitions that are closed to the public.
fn usual_address(service: &str, region: &str) -> String {
    let suffix = match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    format!("https://{service}.{region}.{suffix}/")
}

async fn post(
    login: &IamLogin,
    key: &AwsKey,
    question: Question,
) -> Result<Vec<u8>, WarehouseError> {
    let lost = |what: &str| {
        error(
            C::Lost,
            format!("AWS cannot be asked for credentials: {what}"),
        )
    };
    let usual = usual_address(question.service, &login.region);
    let url = match &login.endpoint {
        Some(url) => url.clone(),
        None => Url::parse(&usual).map_err(|_| lost("`region` is not one"))?,
    };
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => return Err(lost("`endpoint` names no host")),
    };
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|_| lost("no client can be made"))?;
    let headers = signed(&question, &host, &login.region, key, SystemClock.now());
    let mut request = client.post(url).body(question.body);
    for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
        request = request.header(name, value);
    }
    let sent = request.send().await;
    let mut answer = sent.map_err(|_| lost(&format!("{host} does not answer")))?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(lost("its answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return Ok(body);
    }
    let reason = reason(&body);
    let class = class_of(status.as_u16(), &reason);
    let message = format!(
        "AWS gives no credentials ({status}{reason}); check `auth.iam` and what the key's role may do"
    );
    Err(error(class, message))
}

/// Whether it is worth asking again. AWS says 400 as well where it is asked too
/// often ([common errors](https://docs.aws.amazon.com/redshift/latest/APIReference/CommonErrors.html)).
fn class_of(status: u16, reason: &str) -> C {
    let passes = [
        "Throttl",
        "TooManyRequests",
        "RequestLimitExceeded",
        "ServiceUnavailable",
    ];
    match status {
        _ if passes.iter().any(|word| reason.contains(word)) => C::Lost,
        400..429 => C::Configuration,
        _ => C::Lost,
    }
}

/// The kind of refusal, which is a word of AWS's; the rest of what it says may
/// quote anything.
fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let word = json
        .as_ref()
        .and_then(|json| json.get("__type")?.as_str())
        .map(|word| word.rsplit('#').next().unwrap_or(word).to_owned())
        .or_else(|| element(&text, "Code"));
    let is_word =
        |word: &String| word.len() <= 80 && word.chars().all(|c| c.is_ascii_alphanumeric());
    word.filter(is_word)
        .map_or(String::new(), |word| format!(", {word}"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    db_user: String,
    db_password: String,
    /// Seconds since 1970, with a fraction.
    expiration: f64,
}

fn read_answer(
    target: &IamTarget,
    body: &[u8],
) -> Result<(Credentials, Timestamp), WarehouseError> {
    let found = match target {
        IamTarget::Workgroup(_) => serde_json::from_slice::<Given>(body)
            .ok()
            .and_then(|given| {
                let until = jiff::SignedDuration::try_from_secs_f64(given.expiration).ok()?;
                let until = Timestamp::UNIX_EPOCH.checked_add(until).ok()?;
                Some((given.db_user, given.db_password.into(), until))
            }),
        IamTarget::Cluster { .. } => std::str::from_utf8(body).ok().and_then(|text| {
            let until: Timestamp = element(text, "Expiration")?.parse().ok()?;
            let password = SecretString::from(element(text, "DbPassword")?);
            Some((element(text, "DbUser")?, password, until))
        }),
    };
    let Some((user, password, until)) = found else {
        let message = "AWS gave an answer without credentials; check `endpoint` of `auth.iam`";
        return Err(error(C::Configuration, message));
    };
    Ok((Credentials { user, password }, until))
}

/// The text of the first element of that name.
fn element(xml: &str, name: &str) -> Option<String> {
    let document = roxmltree::Document::parse(xml).ok()?;
    let mut elements = document.descendants();
    let found = elements.find(|node| node.tag_name().name() == name)?;
    found.text().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(user: Option<&str>) -> IamTarget {
        IamTarget::Cluster {
            cluster: "c1".to_owned(),
            user: user.map(str::to_owned),
        }
    }

    #[test]
    fn being_asked_too_often_passes_and_being_refused_does_not() {
        for (status, reason, class) in [
            (400, ", ThrottlingException", C::Lost),
            (400, ", Throttling", C::Lost),
            (400, ", ValidationException", C::Configuration),
            (403, ", AccessDeniedException", C::Configuration),
            (429, "", C::Lost),
            (503, "", C::Lost),
        ] {
            assert_eq!(class_of(status, reason), class, "{status}{reason}");
        }
    }

    /// What another implementation makes of the same requests: botocore, by
    /// `tests/fixtures/aws_signatures.py`, which also holds them against its
    /// own serializer. The file names the version.
    #[test]
    fn requests_are_signed_as_another_implementation_signs_them() {
        let file = include_str!("../../tests/fixtures/aws_signatures.json");
        let file: serde_json::Value = serde_json::from_str(file).unwrap();
        let text = |of: &serde_json::Value, name: &str| of[name].as_str().map(str::to_owned);
        let vectors = file["vectors"].as_array().unwrap();
        assert!(vectors.len() >= 6);
        for vector in vectors {
            let target = match text(vector, "workgroup") {
                Some(workgroup) => IamTarget::Workgroup(workgroup),
                None => IamTarget::Cluster {
                    cluster: text(vector, "cluster").unwrap(),
                    user: text(vector, "user"),
                },
            };
            let login = IamLogin {
                target,
                region: text(vector, "region").unwrap(),
                endpoint: None,
            };
            let key = AwsKey {
                id: text(&file, "key").unwrap(),
                secret: text(&file, "secret").unwrap().into(),
                session: text(vector, "token").map(SecretString::from),
            };
            let question = question(&login, &text(vector, "database").unwrap());
            assert_eq!(Some(&question.body), text(vector, "body").as_ref());
            let address = usual_address(question.service, &login.region);
            assert_eq!(Some(&address), text(vector, "url").as_ref());
            let url = Url::parse(&address).unwrap();
            let at = text(&file, "at").unwrap().parse().unwrap();
            let host = url.host_str().unwrap();
            let headers = signed(&question, host, &login.region, &key, at);
            let (name, value) = headers.last().unwrap();
            assert_eq!(*name, "authorization");
            assert_eq!(Some(value), text(vector, "authorization").as_ref());
        }
    }

    #[test]
    fn answers_of_both_kinds_are_read() {
        let json = br#"{"dbUser":"IAMR:app","dbPassword":"a&b","expiration":1795359600.5,"nextRefreshTime":1}"#;
        let workgroup = IamTarget::Workgroup("wg".to_owned());
        let (found, until) = read_answer(&workgroup, json).unwrap();
        assert_eq!(
            (&*found.user, found.password.expose_secret()),
            ("IAMR:app", "a&b")
        );
        assert_eq!(until.as_second(), 1_795_359_600);
        let xml = br#"<GetClusterCredentialsResponse xmlns="http://redshift.amazonaws.com/doc/2012-12-01/">
            <GetClusterCredentialsResult><DbPassword>a&amp;b&lt;</DbPassword><Expiration>2026-11-22T15:00:00.123Z</Expiration>
            <DbUser>IAM:campaignd</DbUser></GetClusterCredentialsResult></GetClusterCredentialsResponse>"#;
        let (found, until) = read_answer(&cluster(None), xml).unwrap();
        assert_eq!(
            (&*found.user, found.password.expose_secret()),
            ("IAM:campaignd", "a&b<")
        );
        assert_eq!(until.to_string(), "2026-11-22T15:00:00.123Z");
        for nothing in [&b"{}"[..], b"", b"<a/>", b"\xff"] {
            assert!(read_answer(&workgroup, nothing).is_err());
            assert!(read_answer(&cluster(None), nothing).is_err());
        }
    }

    #[test]
    fn of_a_refusal_only_its_kind_is_repeated() {
        let json = br#"{"__type":"com.amazonaws#AccessDeniedException","message":"User: ada"}"#;
        assert_eq!(reason(json), ", AccessDeniedException");
        let xml = b"<E><Error><Code>ClusterNotFound</Code><Message>ada</Message></Error></E>";
        assert_eq!(reason(xml), ", ClusterNotFound");
        assert_eq!(reason(br#"{"__type":"ada@example.com said"}"#), "");
        assert_eq!(reason(b"whatever"), "");
    }
}
