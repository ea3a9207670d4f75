//! What a `select` reads from: tables, subqueries and the `with` queries in
//! sight.

use sqlparser::ast::{Ident, ObjectName, Query, Select, SelectItem, TableAlias, TableFactor};
use std::rc::Rc;

/// The `with` queries in sight. What is seen from within one of them is shared
/// with those after it: a query can name thousands of them thousands of times.
#[derive(Default, Clone)]
pub(super) struct Scope<'a> {
    last: Option<Rc<Named<'a>>>,
}

/// A `with` query, and those before it, which it sees itself.
struct Named<'a> {
    alias: &'a TableAlias,
    query: &'a Query,
    before: Scope<'a>,
}

impl Drop for Named<'_> {
    /// One after the other: by itself each would be dropped within the one
    /// after it, and a stack has an end.
    fn drop(&mut self) {
        let mut next = self.before.last.take();
        while let Some(mut named) = next.and_then(Rc::into_inner) {
            next = named.before.last.take();
        }
    }
}

/// A query that a relation stands for.
pub(super) struct Source<'a> {
    pub(super) query: &'a Query,
    /// What it sees.
    pub(super) scope: Scope<'a>,
    /// Where its columns are given other names, outermost last.
    pub(super) aliases: Vec<&'a TableAlias>,
    /// Whether its columns are others, made of its rows by `pivot` or `unpivot`.
    pub(super) is_reshaped: bool,
}

impl<'a> Scope<'a> {
    /// What `query` sees, standing here.
    pub(super) fn within(&self, query: &'a Query) -> Self {
        let mut scope = self.clone();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let named = Named {
                alias: &cte.alias,
                query: &cte.query,
                before: scope,
            };
            scope = Self {
                last: Some(Rc::new(named)),
            };
        }
        scope
    }

    /// The query called `name`.
    fn find(&self, name: &Ident) -> Option<Source<'a>> {
        let all = std::iter::successors(self.last.as_ref(), |named| named.before.last.as_ref());
        let is_it = |named: &&Rc<Named>| named.alias.name.value.eq_ignore_ascii_case(&name.value);
        let found = all.into_iter().find(is_it)?;
        Some(Source {
            query: found.query,
            scope: found.before.clone(),
            aliases: vec![found.alias],
            is_reshaped: false,
        })
    }

    /// The queries that the `*` in `item` stands for; none where it is no `*`,
    /// or where one of its relations is no query.
    pub(super) fn of_star(&self, item: &SelectItem, select: &'a Select) -> Option<Vec<Source<'a>>> {
        let only = match item {
            SelectItem::Wildcard(_) => None,
            SelectItem::QualifiedWildcard(kind, _) => Some(kind.to_string()),
            _ => return None,
        };
        let only = only.map(|text| text.trim_end_matches(".*").to_owned());
        let is_meant = |factor: &&TableFactor| {
            let name = only.as_deref();
            name.is_none_or(|name| called(factor).is_some_and(|c| c.eq_ignore_ascii_case(name)))
        };
        let relations = factors(select).into_iter().filter(is_meant);
        let sources: Option<Vec<_>> = relations.map(|relation| self.source(relation)).collect();
        sources.filter(|sources| !sources.is_empty())
    }

    /// The query that a relation stands for; none for a table.
    fn source(&self, factor: &'a TableFactor) -> Option<Source<'a>> {
        match factor {
            TableFactor::Derived {
                subquery, alias, ..
            } => Some(Source {
                query: subquery.as_ref(),
                scope: self.clone(),
                aliases: alias.iter().collect(),
                is_reshaped: false,
            }),
            TableFactor::Pivot { table, .. } | TableFactor::Unpivot { table, .. } => {
                let found = self.source(table)?;
                Some(Source {
                    is_reshaped: true,
                    ..found
                })
            }
            TableFactor::Table { name, alias, .. } if name.0.len() == 1 => {
                let mut found = self.find(last(name)?)?;
                found.aliases.extend(alias);
                Some(found)
            }
            _ => None,
        }
    }
}

/// Whether it is a `*`, of one relation or of all.
pub(super) fn is_star(item: &SelectItem) -> bool {
    matches!(
        item,
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
    )
}

/// The relations a `select` reads, joined ones included.
fn factors(select: &Select) -> Vec<&TableFactor> {
    let mut all = Vec::new();
    for table in &select.from {
        all.push(&table.relation);
        all.extend(table.joins.iter().map(|join| &join.relation));
    }
    all
}

/// What a relation is called in its `select`.
fn called(factor: &TableFactor) -> Option<&str> {
    match factor {
        TableFactor::Table {
            alias: Some(alias), ..
        }
        | TableFactor::Derived {
            alias: Some(alias), ..
        }
        | TableFactor::Pivot {
            alias: Some(alias), ..
        }
        | TableFactor::Unpivot {
            alias: Some(alias), ..
        } => Some(&alias.name.value),
        TableFactor::Table { name, .. } => last(name).map(|name| name.value.as_str()),
        _ => None,
    }
}

fn last(name: &ObjectName) -> Option<&Ident> {
    name.0.last().and_then(|part| part.as_ident())
}
