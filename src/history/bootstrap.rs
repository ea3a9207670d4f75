//! The SQL that an administrator runs once.

use super::tables::TABLES;
use super::views::{CONTACT_PERFORMANCE, Conversions, contact_performance, holdout_lift};
use crate::audience::{BadText, Dialect, Schema, Statement, identifier};
use std::fmt::Write as _;

/// How long a session may do nothing before the server ends it: far longer
/// than we keep one. In seconds, after the
/// [`create user`](https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_USER.html) of Redshift.
const SESSION_TIMEOUT: &str = "session timeout 3600";

/// Whom and what the bootstrap is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapOptions {
    /// The one schema the daemon writes.
    pub schema: String,
    /// Its login.
    pub user: String,
    /// Whether it logs in with temporary credentials, without a password.
    pub by_iam: bool,
    /// The relations that campaigns read, as `schema.relation`; with none, the
    /// grants are an example.
    pub shared: Vec<String>,
    /// Statements at a time on the audience side.
    pub max_queries: u32,
    /// What `holdout_lift` measures by; without it there is no such view.
    pub conversions: Option<Conversions>,
}

/// The SQL that makes a connector ready: user, grants, schema, tables. It can
/// be run again; what is there already stays as it is.
pub fn bootstrap(dialect: Dialect, options: &BootstrapOptions) -> Result<String, BadText> {
    let schema = Schema {
        dialect,
        name: options.schema.clone(),
    };
    let mut text = String::new();
    let mut parts = match dialect {
        Dialect::Sqlite => vec![tables(&schema, None)],
        Dialect::Postgres | Dialect::Redshift => vec![
            user(dialect, options)?,
            grants(options),
            own_schema(options),
            tables(&schema, Some(&options.user)),
        ],
    };
    if let Some(conversions) = &options.conversions {
        parts.push(format!(
            "-- The view that compares contacted with held out. It is the administrator's own.\n{};\n",
            holdout_lift(&schema, conversions).sql
        ));
    }
    text.push_str("-- Prepares a warehouse for campaignd. It can be run again.\n");
    for part in parts {
        text.push('\n');
        text.push_str(&part);
    }
    Ok(text)
}

/// The same for a connector whose history is behind another one: it needs no
/// tables of ours, only a schema to freeze audiences in.
pub fn bootstrap_for_stages(
    dialect: Dialect,
    options: &BootstrapOptions,
) -> Result<String, BadText> {
    let parts = [
        "-- Prepares a warehouse whose history is written through another connector.\n\
         -- It can be run again.\n"
            .to_owned(),
        user(dialect, options)?,
        grants(options),
        own_schema(options),
    ];
    Ok(parts.join("\n"))
}

fn user(dialect: Dialect, options: &BootstrapOptions) -> Result<String, BadText> {
    let name = identifier(&options.user);
    let limit = format!("connection limit {}", connections(options.max_queries));
    Ok(match dialect {
        Dialect::Redshift if options.by_iam && options.user.starts_with("IAM") => format!(
            "-- 1. The login is made by IAM when it is used first: log in with it once, as by\n\
             -- `campaignd connector test`, then run what follows. `IAMR:role` stands for a role:\n\
             -- put its name there, here {name}. Once it is there, run this too:\n\
             -- alter user {name} {limit} {SESSION_TIMEOUT};\n"
        ),
        Dialect::Redshift if options.by_iam => format!(
            "-- 1. The login, once: this line fails where it is there already. It logs in with\n\
             -- temporary credentials alone.\n\
             -- create user {name} password disable {limit} {SESSION_TIMEOUT};\n"
        ),
        Dialect::Redshift => format!(
            "-- 1. The login, once: this line fails where it is there already. Give the password\n\
             -- in clear text, as here: a login with a SHA-256 digest cannot be used.\n\
             -- create user {name} password '<password>' {limit} {SESSION_TIMEOUT};\n"
        ),
        Dialect::Sqlite | Dialect::Postgres => {
            let mark = mark_outside(&options.user);
            format!(
                "-- 1. The login, unless it is there already.\n\
                 do {mark} begin\n  \
                 if not exists (select 1 from pg_roles where rolname = {}) then\n    \
                 create user {name} password '<password>' {limit};\n  end if;\nend {mark};\n",
                dialect.literal(&options.user)?
            )
        }
    })
}

/// How many sessions the login may have: each statement's, one to settle and
/// one to close, and all of it twice, since runs keep what they began with when
/// the settings change or another host shares the work; and some for people's
/// commands.
fn connections(max_queries: u32) -> u32 {
    max_queries
        .saturating_add(2)
        .saturating_mul(2)
        .saturating_add(4)
}

/// A mark for quoting by `$…$` that `name` does not hold, so that the name
/// cannot end what it stands in.
fn mark_outside(name: &str) -> String {
    let marks = (0..).map(|length| format!("${}$", "x".repeat(length)));
    let mut free = marks.filter(|mark| !name.contains(mark.as_str()));
    free.next().expect("a name is not endless")
}

fn grants(options: &BootstrapOptions) -> String {
    let user = identifier(&options.user);
    let mut text =
        "-- 2. What campaigns may read: views made for the purpose, no more.\n".to_owned();
    if options.shared.is_empty() {
        let example = format!(
            "-- grant usage on schema shared to {user};\n\
             -- grant select on shared.lapsed_buyers to {user};\n"
        );
        text.push_str(&example);
    }
    for relation in &options.shared {
        let (schema, _) = relation.split_once('.').unwrap_or(("public", ""));
        let parts: Vec<String> = relation.split('.').map(identifier).collect();
        let lines = format!(
            "grant usage on schema {} to {user};\ngrant select on {} to {user};\n",
            identifier(schema),
            parts.join(".")
        );
        text.push_str(&lines);
    }
    text
}

fn own_schema(options: &BootstrapOptions) -> String {
    let schema = identifier(&options.schema);
    let user = identifier(&options.user);
    format!(
        "-- 3. The one schema it writes, which it owns.\n\
         create schema if not exists {schema} authorization {user};\n\
         grant usage, create on schema {schema} to {user};\n"
    )
}

fn tables(schema: &Schema, owner: Option<&str>) -> String {
    // On SQLite there is nothing before them.
    let number = owner.map_or("", |_| "4. ");
    let mut text = format!("-- {number}Its tables. No keys are declared on purpose.\n");
    let mut add = |name: &str, statements: &[Statement]| {
        for statement in statements {
            writeln!(text, "{};", statement.sql).expect("writing to a string cannot fail");
        }
        if let Some(owner) = owner {
            let name = schema.table(name);
            writeln!(text, "alter table {name} owner to {};", identifier(owner))
                .expect("writing to a string cannot fail");
        }
    };
    for table in TABLES {
        let statements = std::iter::once(table.create(schema)).chain(table.index(schema));
        add(table.name, &statements.collect::<Vec<_>>());
    }
    add(CONTACT_PERFORMANCE, &[contact_performance(schema)]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> BootstrapOptions {
        BootstrapOptions {
            schema: "campaignd".to_owned(),
            user: "campaignd".to_owned(),
            by_iam: false,
            shared: vec!["shared.lapsed_buyers".to_owned()],
            max_queries: 6,
            conversions: Some("shared.conversions".parse().unwrap()),
        }
    }

    #[test]
    fn a_name_cannot_end_the_block_it_stands_in() {
        assert_eq!(mark_outside("campaignd"), "$$");
        assert_eq!(mark_outside("a$$; drop table t; $x$"), "$xx$");
        let user = "a$$b".to_owned();
        let odd = BootstrapOptions { user, ..options() };
        let text = bootstrap(Dialect::Postgres, &odd).unwrap();
        assert_eq!(text.matches("$x$").count(), 2, "{text}");
    }

    #[test]
    fn the_bootstrap_declares_no_key() {
        for dialect in [Dialect::Sqlite, Dialect::Postgres, Dialect::Redshift] {
            let text = bootstrap(dialect, &options()).unwrap().to_lowercase();
            let statements = text.lines().filter(|line| !line.starts_with("--"));
            for line in statements {
                assert!(
                    !line.contains("primary key") && !line.contains("unique"),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn redshift_finds_history_by_member_and_time() {
        let text = bootstrap(Dialect::Redshift, &options()).unwrap();
        assert!(text.contains("distkey (profile_id) compound sortkey (recorded_at)"));
        assert!(!text.contains("create index"));
        assert!(text.contains("grant select on \"shared\".\"lapsed_buyers\" to \"campaignd\""));
    }

    #[test]
    fn a_login_may_have_the_sessions_that_its_connector_makes() {
        for (max_queries, wanted) in [(6, "connection limit 20"), (50, "connection limit 108")] {
            let options = BootstrapOptions {
                max_queries,
                ..options()
            };
            for dialect in [Dialect::Postgres, Dialect::Redshift] {
                let text = bootstrap(dialect, &options).unwrap();
                assert!(text.contains(wanted), "{text}");
            }
        }
    }

    #[test]
    fn a_login_by_iam_gets_no_password() {
        for (user, wanted) in [
            ("IAMR:campaigns", "made by IAM"),
            ("campaigner", "password disable"),
        ] {
            let options = BootstrapOptions {
                user: user.to_owned(),
                by_iam: true,
                ..options()
            };
            let text = bootstrap(Dialect::Redshift, &options).unwrap();
            assert!(text.contains(wanted), "{text}");
            assert!(!text.contains("<password>"), "{text}");
        }
    }
}
