//! Whom the daemon logs in as, for a connection that is about to be made: the
//! password of the operator's file, a command's answer, or AWS's for a while.
//! None of it is ever logged.

use super::errors::error;
#[cfg(feature = "iam")]
use super::iam::ask_aws;
use super::options::ServerOptions;
use crate::run::{WarehouseError, WarehouseErrorClass as C};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// How often it is run, at most; what it said holds in between.
const COMMAND_EVERY: Duration = Duration::from_secs(60);

/// The longest password.
const MAX_PASSWORD_BYTES: u64 = 16 * 1024;

/// Where the password comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// The operator's file, or there is none.
    #[default]
    Given,
    /// A program's standard output, without the line end; the program and its
    /// arguments, without a shell.
    Command(Vec<String>),
    /// AWS, in exchange for a signature.
    Iam(Box<IamLogin>),
}

/// What the operator's file says under `auth.iam`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IamLogin {
    /// What is logged in to.
    pub target: IamTarget,
    /// `us-east-1`.
    pub region: String,
    /// Where AWS is asked instead of its usual address for the region.
    pub endpoint: Option<Url>,
}

/// What is logged in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IamTarget {
    /// Redshift Serverless: the user is made from the caller's role.
    Workgroup(String),
    /// A provisioned cluster.
    Cluster {
        /// Its identifier.
        cluster: String,
        /// The database's user; none for the one made from the caller's role.
        user: Option<String>,
    },
}

/// A user and a password.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: SecretString,
}

/// What was learned last, and until when it holds. One asks at a time.
#[derive(Default)]
pub(super) struct Logins(Mutex<Option<Known>>);

/// What there is to log in with, or why there is nothing.
type Answer = Result<Credentials, WarehouseError>;

/// For how long temporary credentials are used that hold for `life`: they are
/// renewed while they would still do.
fn renewed_after(life: Duration) -> Duration {
    life / 3 * 2
}

/// Settings refuse `auth.iam` in a build without it.
#[cfg(not(feature = "iam"))]
async fn ask_aws(
    _: &IamLogin,
    _: &ServerOptions,
) -> Result<(Credentials, Duration), WarehouseError> {
    let message = "this build has no logins by IAM; build it with the feature `iam`";
    Err(error(C::Configuration, message))
}

struct Known {
    answer: Answer,
    until: Instant,
    /// Whether it was learned for an earlier connection than the last.
    is_old: bool,
}

impl Logins {
    /// For the next connection to `server`.
    pub(super) async fn credentials(&self, server: &ServerOptions) -> Answer {
        match &server.login {
            Login::Given => Ok(Credentials {
                user: server.user.clone(),
                password: server.password.clone(),
            }),
            Login::Command(argv) => {
                let asking = async {
                    let said = run(argv).await;
                    let answer = said.map(|said| said.for_user(&server.user));
                    (answer, COMMAND_EVERY)
                };
                self.remembered(asking).await
            }
            Login::Iam(iam) => {
                let asking = async {
                    match ask_aws(iam, server).await {
                        Ok((credentials, life)) => (Ok(credentials), renewed_after(life)),
                        Err(failed) => (Err(failed), Duration::ZERO),
                    }
                };
                self.remembered(asking).await
            }
        }
    }

    /// What was learned last, while it holds; else what `asking` comes to, and
    /// for how long that holds. One asks at a time.
    async fn remembered(&self, asking: impl Future<Output = (Answer, Duration)>) -> Answer {
        let mut known = self.0.lock().await;
        if let Some(known) = &mut *known
            && Instant::now() < known.until
        {
            known.is_old = true;
            return known.answer.clone();
        }
        let now = Instant::now();
        let (answer, holds) = asking.await;
        *known = Some(Known {
            answer: answer.clone(),
            until: now + holds,
            is_old: false,
        });
        answer
    }

    /// The server has refused what was learned last: it is asked for anew.
    /// Returns whether it may have been replaced since it was learned.
    pub(super) async fn forget(&self) -> bool {
        let known = self.0.lock().await.take();
        known.is_some_and(|known| known.is_old)
    }
}

impl Credentials {
    fn for_user(self, user: &str) -> Self {
        Self {
            user: user.to_owned(),
            ..self
        }
    }
}

/// Runs the command; nothing it says but the password is read, and that is
/// repeated nowhere.
async fn run(argv: &[String]) -> Result<Credentials, WarehouseError> {
    let (program, arguments) = argv.split_first().ok_or_else(|| {
        error(
            C::Configuration,
            "`password_command` is empty; name a program",
        )
    })?;
    let failed = |class, why: String| {
        let message = format!("`password_command` ({program}) {why}");
        error(class, message)
    };
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = started.map_err(|io| {
        let why = format!("cannot be started: {io}; correct `auth` of the connector");
        failed(C::Configuration, why)
    })?;
    let talking = async {
        let mut said = Zeroizing::new(Vec::new());
        if let Some(output) = child.stdout.take() {
            let mut output = output.take(MAX_PASSWORD_BYTES + 1);
            output.read_to_end(&mut said).await?;
        }
        if said.len() as u64 > MAX_PASSWORD_BYTES {
            return Ok((said, None));
        }
        child.wait().await.map(|status| (said, Some(status)))
    };
    let ended = tokio::time::timeout(COMMAND_LIMIT, talking).await;
    let Ok(ended) = ended else {
        return Err(failed(
            C::Lost,
            "did not end within 10 s; run it by hand".to_owned(),
        ));
    };
    let (said, status) =
        ended.map_err(|io| failed(C::Lost, format!("cannot be read: {}", io.kind())))?;
    let Some(status) = status else {
        let why = "says more than 16 KiB; it must print the password alone";
        return Err(failed(C::Configuration, why.to_owned()));
    };
    if !status.success() {
        return Err(failed(
            C::Lost,
            format!("failed ({status}); run it by hand"),
        ));
    }
    let text = std::str::from_utf8(&said).unwrap_or_default();
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.contains(['\n', '\0']) {
        let why = "does not print one line of text; it must print the password alone";
        return Err(failed(C::Configuration, why.to_owned()));
    }
    Ok(Credentials {
        user: String::new(),
        password: text.to_owned().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    async fn say(script: &str) -> Result<String, WarehouseError> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        let found = run(&argv).await?;
        Ok(found.password.expose_secret().to_owned())
    }

    #[tokio::test]
    async fn a_commands_one_line_is_the_password() {
        for (script, wanted) in [
            ("echo 'pa ss'", "pa ss"),
            ("printf 'x\\r\\n'", "x"),
            ("printf y; echo noise >&2", "y"),
        ] {
            assert_eq!(say(script).await.unwrap(), wanted);
        }
    }

    #[tokio::test]
    async fn a_command_that_fails_is_told_of_without_a_word_of_what_it_said() {
        for (script, class, advice) in [
            ("echo canary; exit 3", C::Lost, "run it by hand"),
            ("true", C::Configuration, "print the password alone"),
            (
                "echo canary; echo canary",
                C::Configuration,
                "print the password alone",
            ),
            (
                "printf '\\377'",
                C::Configuration,
                "print the password alone",
            ),
            ("yes canary", C::Configuration, "print the password alone"),
        ] {
            let failed = say(script).await.unwrap_err();
            assert_eq!(failed.class, class, "{failed:?}");
            assert!(failed.message.ends_with(advice), "{failed:?}");
            assert!(!failed.message.contains("canary"), "{failed:?}");
        }
        let failed = run(&["/nonexistent".to_owned()]).await.unwrap_err();
        assert_eq!(failed.class, C::Configuration);
        assert!(failed.message.ends_with("correct `auth` of the connector"));
    }

    /// How often AWS was asked when each of `times` after the first login had
    /// passed, for credentials of an hour.
    async fn asked_after(times: &[u64]) -> Vec<u32> {
        let logins = Logins::default();
        let (mut asked, mut seen) = (0, Vec::new());
        let began = Instant::now();
        for time in times {
            tokio::time::sleep_until(began + Duration::from_secs(*time)).await;
            let asking = async {
                asked += 1;
                let credentials = Credentials {
                    user: format!("IAM:{asked}"),
                    password: String::new().into(),
                };
                (Ok(credentials), renewed_after(Duration::from_secs(3_600)))
            };
            let used = logins.remembered(asking).await.unwrap();
            assert_eq!(used.user, format!("IAM:{asked}"));
            seen.push(asked);
        }
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn temporary_credentials_are_renewed_after_two_thirds_of_their_life() {
        let asked = asked_after(&[0, 1, 2_399, 2_400, 4_799, 4_800]).await;
        assert_eq!(asked, [1, 1, 1, 2, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_aws_refuses_is_asked_for_again_at_the_next_connection() {
        let logins = Logins::default();
        for _ in 0..2 {
            let refused = async { (Err(error(C::Lost, "no")), Duration::ZERO) };
            assert!(logins.remembered(refused).await.is_err());
        }
        let given = async {
            let credentials = Credentials {
                user: "IAM:app".to_owned(),
                password: String::new().into(),
            };
            (Ok(credentials), Duration::ZERO)
        };
        assert_eq!(logins.remembered(given).await.unwrap().user, "IAM:app");
    }
}
