//! What a login may do, and what of it the daemon does not need.

use super::pool::Session;
use super::report_ask::{cell, first, held, rows, visible_rows};
use super::report_sql as ask;
use crate::audience::{Dialect, Schema};
use crate::run::WarehouseError;
use serde::Serialize;
use std::collections::BTreeSet;

/// The most schemas that are listed.
pub(super) const MAX_SCHEMAS: usize = 200;

/// What a login may do, relations aside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Privileges {
    /// What the login itself is: `superuser`, `createdb` and the like.
    pub attributes: Vec<String>,
    /// The roles and groups it is in, also by way of others.
    pub roles: Vec<String>,
    /// Whether these may be seen; where not, there may be more.
    pub roles_are_visible: bool,
    /// What it holds on the database.
    pub database: Vec<String>,
    /// What it holds on schemas, at most 200 of them.
    pub schemas: Vec<SchemaPrivileges>,
}

/// What a login holds on a schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaPrivileges {
    /// The schema.
    pub name: String,
    /// `usage`, `create`.
    pub privileges: Vec<String>,
}

/// A role that the login is in, and why that is more than it needs; none where
/// it is not.
struct Role {
    name: String,
    excess: Option<String>,
}

impl Privileges {
    /// What the login of `session` holds.
    pub(super) async fn of(
        session: &mut Session,
        dialect: Dialect,
    ) -> Result<(Self, Vec<String>), WarehouseError> {
        let (sql, words) = ask::attributes(dialect);
        let row = rows(session, sql).await?.pop().unwrap_or_default();
        let attributes = held(&row, 0, words);
        let is_superuser = attributes.iter().any(|one| one == "superuser");
        let roles = match dialect {
            // A superuser passes for a member of each.
            _ if is_superuser => Some(Vec::new()),
            Dialect::Redshift => roles_of_redshift(session).await?,
            Dialect::Postgres | Dialect::Sqlite => Some(roles_of_postgres(session).await?),
        };
        let (sql, words) = ask::on_database(dialect);
        let row = rows(session, sql).await?.pop().unwrap_or_default();
        let database = held(&row, 0, words);
        let schemas = rows(session, &ask::on_schemas(dialect, MAX_SCHEMAS)).await?;
        let schema = |row: Vec<Option<String>>| SchemaPrivileges {
            name: cell(&row, 0),
            privileges: held(&row, 1, &["usage", "create"]),
        };
        let roles_are_visible = roles.is_some();
        let roles = roles.unwrap_or_default();
        let excesses = roles.iter().filter_map(|role| {
            let excess = role.excess.as_ref()?;
            let name = &role.name;
            Some(format!(
                "the login is in the role `{name}`, {excess}; an administrator must revoke it"
            ))
        });
        let excesses = excesses.collect();
        let held = Self {
            attributes,
            roles: roles.into_iter().map(|role| role.name).collect(),
            roles_are_visible,
            database,
            schemas: schemas.into_iter().map(schema).collect(),
        };
        Ok((held, excesses))
    }

    /// Whether the login may do anything at all.
    pub(super) fn is_superuser(&self) -> bool {
        self.attributes.iter().any(|one| one == "superuser")
    }

    /// What of it an ordinary login does not need for writing to `own`.
    pub(super) fn excesses(&self, own: &Schema, login: &str) -> Vec<String> {
        let mut found = Vec::new();
        let has = |all: &[String], word: &str| all.iter().any(|one| one == word);
        for (word, what) in [
            ("createdb", "create databases"),
            ("createrole", "create roles"),
            ("replication", "copy all there is by replication"),
            ("bypassrls", "see rows that policies hide"),
        ] {
            if has(&self.attributes, word) {
                found.push(format!(
                    "the login `{login}` may {what}; an administrator must run `alter user … no{word}`"
                ));
            }
        }
        if has(&self.database, "create") {
            found.push(
                "the login may create schemas in the database; an administrator must revoke \
                 create on it"
                    .to_owned(),
            );
        }
        for schema in &self.schemas {
            let name = &schema.name;
            if *name == own.name || !has(&schema.privileges, "create") {
                continue;
            }
            let whose = match name.as_str() {
                "public" => " from public",
                _ => "",
            };
            found.push(format!(
                "the login may create tables in the schema `{name}`; an administrator must revoke \
                 create on it{whose}"
            ));
        }
        found
    }
}

/// PostgreSQL's own roles, and those that may do what no login of ours needs.
async fn roles_of_postgres(session: &mut Session) -> Result<Vec<Role>, WarehouseError> {
    let found = rows(session, ask::ROLES).await?;
    let role = |row: Vec<Option<String>>| {
        let name = cell(&row, 0);
        let may = held(
            &row,
            1,
            &[
                "do anything",
                "create databases",
                "create roles",
                "bypass row policies",
            ],
        );
        let excess = match may.is_empty() {
            false => Some(format!("which may {}", may.join(" and "))),
            true => name
                .starts_with("pg_")
                .then(|| "which reaches beyond what is shared".to_owned()),
        };
        Role { name, excess }
    };
    Ok(found.into_iter().map(role).collect())
}

/// Redshift's roles, those granted to roles included, and groups; none where
/// they may not be seen.
async fn roles_of_redshift(session: &mut Session) -> Result<Option<Vec<Role>>, WarehouseError> {
    let Some(granted) = visible_rows(session, ask::USER_GRANTS).await? else {
        return Ok(None);
    };
    let mut new: Vec<String> = granted.into_iter().filter_map(first).collect();
    let by_roles = visible_rows(session, ask::ROLE_GRANTS).await?;
    let by_roles = by_roles.unwrap_or_default();
    let mut names = BTreeSet::new();
    while let Some(name) = new.pop() {
        let next = by_roles.iter().filter(|row| cell(row, 0) == name);
        let next: Vec<String> = next.map(|row| cell(row, 1)).collect();
        if names.insert(name) {
            new.extend(next);
        }
    }
    let groups = rows(session, ask::GROUPS).await?;
    names.extend(groups.into_iter().filter_map(first));
    let role = |name: String| Role {
        excess: name
            .starts_with("sys:")
            .then(|| "which reaches beyond what is shared".to_owned()),
        name,
    };
    Ok(Some(names.into_iter().map(role).collect()))
}
