//! `auth` of a connector: who logs in, and where the password comes from.

use super::address::is_loopback;
use super::secret::Secret;
use crate::audience::Dialect;
use crate::campaign::yaml::{Field, Section};
use crate::warehouse::{IamLogin, IamTarget, Login};
use url::Url;

/// The most words of a command.
const MAX_ARGUMENTS: usize = 100;

/// Stands for the user that AWS makes from a role, whose name we do not know.
const USER_OF_ROLE: &str = "IAMR:role";

/// What `auth` says.
pub(super) struct Read {
    /// The user of the database.
    pub(super) user: String,
    /// The password, where the file has it.
    pub(super) password: Option<Secret>,
    /// Where else it comes from.
    pub(super) login: Login,
}

/// Reads `auth`, which has exactly one form.
pub(super) fn read(dialect: Dialect, mut section: Section) -> Option<Read> {
    let forms = ["password", "password_command", "iam"];
    if forms.iter().filter(|form| section.has(form)).count() > 1 {
        section.error("take one of `password`, `password_command` and `iam`");
    }
    if let Some(field) = section.optional("iam") {
        return read_iam(dialect, &field, section);
    }
    let user = section.required("user").and_then(|f| user_name(&f));
    let command = section.optional("password_command");
    let password = match dialect == Dialect::Redshift && command.is_none() {
        true => section.required("password"),
        false => section.optional("password"),
    };
    let is_needed = dialect == Dialect::Redshift && command.is_none();
    section.finish();
    let password = match password {
        Some(field) => Some(Secret::read(&field)?),
        None if is_needed => return None,
        None => None,
    };
    let login = match command {
        Some(field) => Login::Command(argv(&field)?),
        None => Login::Given,
    };
    Some(Read {
        user: user?,
        password,
        login,
    })
}

/// A login's name: one line, since it stands in a comment of the SQL that
/// `bootstrap` prints.
fn user_name(field: &Field) -> Option<String> {
    let text = field.filled_text()?;
    if text.contains(char::is_control) {
        field.error(format!("`{}` must be one line", field.path()));
        return None;
    }
    Some(text.to_owned())
}

/// A program by its whole path, and its arguments.
fn argv(field: &Field) -> Option<Vec<String>> {
    let words = field.list()?;
    let words: Vec<String> = words
        .iter()
        .map(|word| word.text().map(str::to_owned))
        .collect::<Option<_>>()?;
    let is_whole = words
        .first()
        .is_some_and(|program| program.starts_with('/'));
    if is_whole && words.len() <= MAX_ARGUMENTS {
        return Some(words);
    }
    field.error(format!(
        "`{}` must be a program by its whole path and its arguments, as in [\"/usr/bin/get-secret\", \"warehouse\"]; no shell reads it",
        field.path()
    ));
    None
}

fn read_iam(dialect: Dialect, field: &Field, rest: Section) -> Option<Read> {
    rest.finish();
    if dialect != Dialect::Redshift {
        field.error("`iam` is for Redshift; give `password` or `password_command`");
    }
    if cfg!(not(feature = "iam")) {
        field.error(
            "this build of campaignd has no logins by IAM; build it with the feature `iam`, or \
             give `password_command`",
        );
    }
    let mut section = field.section()?;
    let text = |field: Option<Field<'_>>| field.map(|f| name(&f));
    let workgroup = text(section.optional("workgroup"));
    let cluster = text(section.optional("cluster"));
    let user = section.optional("user");
    let region = section.required("region").and_then(|f| name(&f));
    let endpoint = section.optional("endpoint").map(|f| endpoint(&f));
    let target = match (workgroup, cluster) {
        (Some(workgroup), None) => {
            if let Some(user) = &user {
                user.error("a workgroup's user is made from the role; leave `user` out");
            }
            workgroup.map(IamTarget::Workgroup)
        }
        (None, Some(cluster)) => {
            let user = user.map(|f| user_name(&f));
            cluster.map(|cluster| IamTarget::Cluster {
                cluster,
                user: user.flatten(),
            })
        }
        _ => {
            section.error(
                "give `workgroup` (Serverless) or `cluster` (provisioned), and one of them only",
            );
            None
        }
    };
    section.finish();
    let target = target?;
    let user = match &target {
        IamTarget::Cluster {
            user: Some(user), ..
        } => user.clone(),
        _ => USER_OF_ROLE.to_owned(),
    };
    let endpoint = match endpoint {
        Some(read) => Some(read?),
        None => None,
    };
    let region = region?;
    Some(Read {
        user,
        password: None,
        login: Login::Iam(Box::new(IamLogin {
            target,
            region,
            endpoint,
        })),
    })
}

/// Letters, digits and hyphens: what AWS's names are made of, and what is
/// safe within a host name.
fn name(field: &Field) -> Option<String> {
    let text = field.filled_text()?;
    if text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Some(text.to_owned());
    }
    field.error(format!(
        "`{}` must be letters, digits and hyphens, at most 64",
        field.path()
    ));
    None
}

fn endpoint(field: &Field) -> Option<Url> {
    let url = Url::parse(field.filled_text()?).ok();
    let is_good = |url: &Url| {
        let is_local = url.host_str().is_some_and(is_loopback);
        let is_bare = url.path() == "/" && url.query().is_none() && url.username().is_empty();
        (url.scheme() == "https" || (url.scheme() == "http" && is_local)) && is_bare
    };
    let url = url.filter(is_good);
    if url.is_none() {
        field.error(format!(
            "`{}` must be https:// and a host, without login or path (http:// on loopback)",
            field.path()
        ));
    }
    url
}
