//! Logins with temporary credentials of AWS's: a stand-in for AWS that is asked
//! over HTTP, and the gate, which lets in whom it gave a password, with the
//! built program.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::connection_login::{no_secret_in, site};
use crate::support;

use campaignd::run::{Clock as _, SystemClock};
use jiff::Timestamp;
use std::collections::BTreeMap;
use support::gate::{Act, Cut};
use support::oracle;
use support::receiver::{Answer, Receiver, Recorded};
use support::redshift_gate::PASSWORD;
use support::site::Site;

/// Which credentials are asked for.
#[derive(Clone, Copy)]
enum Of {
    /// `GetCredentials`.
    Workgroup,
    /// `GetClusterCredentials`, for the user `campaigner`.
    ClusterUser,
    /// `GetClusterCredentialsWithIAM`.
    Cluster,
}

impl Of {
    /// What `auth.iam` says.
    fn keys(self) -> &'static str {
        match self {
            Self::Workgroup => "workgroup: wg",
            Self::ClusterUser => "cluster: c1, user: campaigner",
            Self::Cluster => "cluster: c1",
        }
    }

    /// Whom AWS makes of it.
    fn user(self) -> &'static str {
        match self {
            Self::Workgroup | Self::Cluster => "IAMR:campaigns",
            Self::ClusterUser => "IAM:campaigner",
        }
    }

    /// What AWS answers.
    fn answer(self, until: Timestamp) -> String {
        let user = self.user();
        let action = match self {
            Self::Workgroup => {
                let until = until.as_second();
                return format!(
                    r#"{{"dbUser":"{user}","dbPassword":"{PASSWORD}","expiration":{until}.5}}"#
                );
            }
            Self::ClusterUser => "GetClusterCredentials",
            Self::Cluster => "GetClusterCredentialsWithIAM",
        };
        format!(
            r#"<{action}Response xmlns="http://redshift.amazonaws.com/doc/2012-12-01/">
  <{action}Result>
    <DbUser>{user}</DbUser>
    <DbPassword>{PASSWORD}</DbPassword>
    <Expiration>{until}</Expiration>
  </{action}Result>
  <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</{action}Response>"#
        )
    }
}

/// Carries a run whose credentials hold for `life` seconds, over a session
/// that is cut and one that is made for it. Returns what AWS was asked.
async fn run_with_iam(name: &str, of: Of, life: i64) -> (Site, Vec<Recorded>) {
    let aws = Receiver::start().await;
    let endpoint = format!("http://{}/", aws.address());
    let (site, _) = site(name, |_, _| {
        let keys = of.keys();
        format!("{{ iam: {{ {keys}, region: us-east-1, endpoint: '{endpoint}' }} }}")
    })
    .await;
    // The one AWS makes, who has never logged in before.
    let user = of.user();
    site.sql(&format!("create role \"{user}\" login superuser"))
        .await;
    let until = SystemClock.now() + jiff::SignedDuration::from_secs(life);
    let answer = of.answer(until);
    aws.rule(move |_| Answer::reply(200, &[], &answer));
    site.gate().rule(|passing| match &*passing.step {
        "page" if passing.number == 1 => Act::CutBefore(Cut::Reset),
        _ => Act::Pass,
    });
    let mut run = site.command(&["run", "hello"]);
    run.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "AWS-Secret")
        .env("AWS_SESSION_TOKEN", "AWS-Secret-Session");
    let output = run.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    no_secret_in(&output);
    oracle::check(&site).await;
    for request in site.receiver.requests() {
        for member in request.members() {
            assert_eq!(member["login"], user, "who asked for the audience");
        }
    }
    let requests = aws.requests();
    for asked in &requests {
        let token = asked.header("x-amz-security-token");
        assert_eq!(token, Some("AWS-Secret-Session"));
        let signature = asked.header("authorization").unwrap();
        let begins = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/";
        assert!(signature.starts_with(begins), "{signature}");
    }
    (site, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_a_workgroup_log_in_and_are_asked_for_once_while_they_hold() {
    let (_site, requests) = run_with_iam("iam_workgroup", Of::Workgroup, 3_600).await;
    assert_eq!(requests.len(), 1);
    let target = requests[0].header("x-amz-target");
    assert_eq!(target, Some("RedshiftServerless.GetCredentials"));
    assert_eq!(requests[0].json()["workgroupName"], "wg");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_a_cluster_log_in_and_are_asked_for_once_while_they_hold() {
    for (name, of, action, user) in [
        (
            "iam_user",
            Of::ClusterUser,
            "GetClusterCredentials",
            Some("campaigner"),
        ),
        (
            "iam_role",
            Of::Cluster,
            "GetClusterCredentialsWithIAM",
            None,
        ),
    ] {
        let (_site, requests) = run_with_iam(name, of, 3_600).await;
        assert_eq!(requests.len(), 1);
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(&requests[0].body)
            .into_owned()
            .collect();
        let said = |name: &str| form.get(name).map(String::as_str);
        assert_eq!(said("Action"), Some(action));
        assert_eq!(said("ClusterIdentifier"), Some("c1"));
        assert_eq!(said("DbName"), Some(format!("{name}_0").as_str()));
        assert_eq!(said("DbUser"), user);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_lapse_are_asked_for_again() {
    let (_site, requests) = run_with_iam("iam_again", Of::ClusterUser, 0).await;
    assert!(requests.len() > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_aws_refuses_and_a_key_that_is_missing_are_told_of() {
    let aws = Receiver::start().await;
    aws.rule(|_| {
        let body = r#"{"__type":"AccessDeniedException","message":"ada@example.com may not"}"#;
        Answer::reply(400, &[], body)
    });
    let endpoint = format!("http://{}/", aws.address());
    let (site, _) = site("iam_refused", |_, _| {
        format!("{{ iam: {{ workgroup: wg, region: us-east-1, endpoint: '{endpoint}' }} }}")
    })
    .await;
    let mut test = site.command(&["connector", "test", "warehouse"]);
    test.env_remove("AWS_ACCESS_KEY_ID");
    let output = test.output().await.unwrap();
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("set AWS_ACCESS_KEY_ID"), "{said}");
    assert_eq!(aws.count(), 0);
    test.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "AWS-Secret");
    let output = test.output().await.unwrap();
    assert_eq!(output.status.code(), Some(5));
    no_secret_in(&output);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("AccessDeniedException"), "{said}");
    assert!(!said.contains("ada@example.com"), "{said}");
}
