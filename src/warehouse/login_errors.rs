//! Why no connection came about, and the one thing to do about it.

use super::errors::{error, in_database};
use super::keepalive::NoSocket;
use crate::run::{WarehouseError, WarehouseErrorClass};
use std::io;

/// What went wrong while connecting to `target`, its host and port or file.
/// What only the operator can put right is a configuration error, and ends
/// with what to do; anything else is worth another try.
pub(super) fn at_connect(failure: &sqlx::Error, target: &str) -> WarehouseError {
    use WarehouseErrorClass as C;
    match failure {
        sqlx::Error::Database(database) => refused(in_database(database.as_ref(), None), target),
        sqlx::Error::Tls(tls) => {
            let no_tls = tls.to_string().contains("does not support TLS");
            let (what, advice) = match no_tls {
                true => ("the server offers none", "turn TLS on there"),
                false => match tls_problem(tls.as_ref()) {
                    Some(problem) => problem,
                    None => ("TLS failed", CHECK_TLS),
                },
            };
            unencrypted(target, what, advice)
        }
        sqlx::Error::Protocol(text) if text.contains("authentication method") => {
            let message = format!(
                "the warehouse at {target} asks for a kind of login that cannot be given ({text}); \
                 set the user's password again in clear text (`alter user … password '…'`), \
                 so that it is kept as MD5"
            );
            error(C::Configuration, message)
        }
        sqlx::Error::Configuration(what) => {
            let advice = match what.is::<NoSocket>() {
                true => "give TMPDIR a short path that can be written",
                false => "correct the connector",
            };
            let message = format!(
                "the connection to the warehouse at {target} cannot be set up: {what}; {advice}"
            );
            error(C::Configuration, message)
        }
        sqlx::Error::Io(io) => broken(io, target),
        _ => error(
            C::Lost,
            format!("the warehouse at {target} cannot be reached: the connection broke off"),
        ),
    }
}

/// What the server refuses at the login for a reason of its own may pass, a
/// usage limit of Redshift Serverless for one; a setting it does not take
/// will not.
fn refused(mut found: WarehouseError, target: &str) -> WarehouseError {
    let code = found.code.clone().unwrap_or_default();
    if found.class == WarehouseErrorClass::Statement {
        let is_setting = matches!(code.as_str(), "22023" | "42704");
        found.class = match is_setting {
            true => WarehouseErrorClass::Configuration,
            false => WarehouseErrorClass::Busy,
        };
        if is_setting {
            let message = &found.message;
            found.message = format!(
                "the server at {target} takes no session as ours begins ({message}); \
                 correct `kind` of the connector"
            );
        }
    }
    found
}

fn broken(io: &io::Error, target: &str) -> WarehouseError {
    if let Some((what, advice)) = io.get_ref().and_then(tls_problem) {
        return unencrypted(target, what, advice);
    }
    let text = io.to_string();
    let unknown = [
        "Name or service not known",
        "No address associated",
        "Name does not resolve",
    ];
    if unknown.iter().any(|words| text.contains(words)) {
        let message = format!(
            "no address is known for the warehouse at {target}; correct `host` of the connector"
        );
        return error(WarehouseErrorClass::Configuration, message);
    }
    let message = format!("the warehouse at {target} cannot be reached: {text}");
    error(WarehouseErrorClass::Lost, message)
}

const CHECK_TLS: &str = "correct `tls` or `tls_ca_file` of the connector";

fn unencrypted(target: &str, what: &str, advice: &str) -> WarehouseError {
    let message = format!("no encrypted connection to the warehouse at {target}: {what}; {advice}");
    error(WarehouseErrorClass::Configuration, message)
}

/// What TLS says, and what to do about it.
fn tls_problem(
    cause: &(dyn std::error::Error + Send + Sync + 'static),
) -> Option<(&'static str, &'static str)> {
    use rustls::CertificateError as C;
    let tls = cause.downcast_ref::<rustls::Error>()?;
    Some(match tls {
        rustls::Error::InvalidCertificate(
            C::NotValidForName | C::NotValidForNameContext { .. },
        ) => (
            "its certificate is for another name",
            "set `host` of the connector to the name in the certificate",
        ),
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => (
            "its certificate is from an issuer that is not trusted",
            "give the issuer's certificate as `tls_ca_file` of the connector",
        ),
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => (
            "its certificate has expired",
            "renew the certificate of the server",
        ),
        rustls::Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => (
            "its certificate is not valid yet",
            "set the clock of this host right",
        ),
        rustls::Error::InvalidCertificate(_) => (
            "its certificate is not sound",
            "replace the certificate of the server",
        ),
        _ => ("TLS failed", CHECK_TLS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{CertificateError as Bad, Error as Tls};

    fn in_handshake(tls: Tls) -> sqlx::Error {
        sqlx::Error::Io(io::Error::new(io::ErrorKind::InvalidData, tls))
    }

    #[test]
    fn what_only_the_operator_can_put_right_ends_with_what_to_do() {
        let certificate = |bad| in_handshake(Tls::InvalidCertificate(bad));
        let lookup = "failed to lookup address information: Name or service not known";
        let failures = [
            sqlx::Error::Tls("server does not support TLS".into()),
            sqlx::Error::Tls("whatever".into()),
            certificate(Bad::NotValidForName),
            certificate(Bad::UnknownIssuer),
            certificate(Bad::Expired),
            certificate(Bad::NotValidYet),
            certificate(Bad::BadEncoding),
            in_handshake(Tls::DecryptError),
            sqlx::Error::Protocol("unknown authentication method: 13".to_owned()),
            sqlx::Error::Configuration("unrecognized".into()),
            sqlx::Error::Io(io::Error::other(lookup)),
        ];
        let mut texts = Vec::new();
        for failure in failures {
            let found = at_connect(&failure, "db.example:5439");
            assert_eq!(found.class, WarehouseErrorClass::Configuration, "{failure}");
            texts.push(found.message);
        }
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn what_may_pass_is_worth_another_try() {
        let temporary =
            "failed to lookup address information: Temporary failure in name resolution";
        for failure in [
            io::Error::other(temporary),
            io::ErrorKind::ConnectionRefused.into(),
        ] {
            let found = at_connect(&sqlx::Error::Io(failure), "db.example:5439");
            assert_eq!(found.class, WarehouseErrorClass::Lost, "{found:?}");
        }
    }

    #[test]
    fn an_unknown_refusal_at_the_login_is_tried_again_slowly() {
        let refusal = |code: &str| {
            let class = WarehouseErrorClass::Statement;
            let found = error(class, "no");
            refused(
                WarehouseError {
                    code: Some(code.to_owned()),
                    ..found
                },
                "db.example:5439",
            )
        };
        assert_eq!(refusal("XX000").class, WarehouseErrorClass::Busy);
        let setting = refusal("22023");
        assert_eq!(setting.class, WarehouseErrorClass::Configuration);
        assert!(setting.message.ends_with("correct `kind` of the connector"));
    }
}
