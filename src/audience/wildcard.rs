//! A `*` that decides which columns a query returns, however deep it stands.

use sqlparser::ast::{Ident, ObjectName, Query, Select, SelectItem, SetExpr, Spanned, TableFactor};
use sqlparser::tokenizer::Location;
use std::collections::HashSet;

/// How deep queries are followed into each other; nobody writes more.
const MAX_DEPTH: usize = 32;

/// Where the columns of a query are decided by a `*` over a table: those of the
/// outermost `select`s, and those in the subqueries and `with` queries that
/// their own `*` stands for. A `*` over a subquery that names its columns is
/// fine, as are those below that nobody returns.
pub(super) fn deciding_wildcards(query: &Query) -> Vec<Location> {
    let mut found = Found::default();
    of_query(query, &Scope::default(), 0, &mut found);
    found.places.sort_unstable();
    found.places
}

/// The `with` queries in sight, innermost last, each with how many of them it
/// sees itself.
#[derive(Default, Clone)]
struct Scope<'a> {
    named: Vec<(&'a Ident, &'a Query)>,
}

impl<'a> Scope<'a> {
    /// The query called `name`, and what it sees.
    fn find(&self, name: &Ident) -> Option<(&'a Query, Self)> {
        let is_it = |(alias, _): &(&Ident, &Query)| alias.value.eq_ignore_ascii_case(&name.value);
        let at = self.named.iter().rposition(is_it)?;
        let before = self.named[..at].to_vec();
        Some((self.named[at].1, Self { named: before }))
    }
}

/// What was found so far. Each query is followed once, however often it is
/// named: else a few lines could keep us busy for ever.
#[derive(Default)]
struct Found {
    places: Vec<Location>,
    followed: HashSet<*const Query>,
}

fn of_query<'a>(query: &'a Query, scope: &Scope<'a>, depth: usize, found: &mut Found) {
    if !found.followed.insert(std::ptr::from_ref(query)) {
        return;
    }
    let mut scope = scope.clone();
    for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
        scope.named.push((&cte.alias.name, &cte.query));
    }
    of_body(&query.body, &scope, depth + 1, found);
}

fn of_body<'a>(body: &'a SetExpr, scope: &Scope<'a>, depth: usize, found: &mut Found) {
    if depth > MAX_DEPTH {
        return;
    }
    match body {
        SetExpr::Select(select) => of_select(select, scope, depth, found),
        SetExpr::Query(query) => of_query(query, scope, depth, found),
        SetExpr::SetOperation { left, right, .. } => {
            of_body(left, scope, depth + 1, found);
            of_body(right, scope, depth + 1, found);
        }
        _ => {}
    }
}

fn of_select<'a>(select: &'a Select, scope: &Scope<'a>, depth: usize, found: &mut Found) {
    for item in &select.projection {
        let only = match item {
            SelectItem::Wildcard(_) => None,
            SelectItem::QualifiedWildcard(kind, _) => Some(kind.to_string()),
            _ => continue,
        };
        let only = only.map(|text| text.trim_end_matches(".*").to_owned());
        let is_meant = |factor: &&TableFactor| {
            let name = only.as_deref();
            name.is_none_or(|name| called(factor).is_some_and(|c| c.eq_ignore_ascii_case(name)))
        };
        let relations: Vec<&TableFactor> = factors(select).into_iter().filter(is_meant).collect();
        let sources = relations.iter().map(|relation| source(relation, scope));
        let sources: Option<Vec<_>> = sources.collect();
        let Some(sources) = sources.filter(|sources| !sources.is_empty()) else {
            found.places.push(item.span().start);
            continue;
        };
        for (query, scope) in sources {
            of_query(query, &scope, depth, found);
        }
    }
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
        } => Some(&alias.name.value),
        TableFactor::Table { name, .. } => last(name).map(|name| name.value.as_str()),
        _ => None,
    }
}

fn last(name: &ObjectName) -> Option<&Ident> {
    name.0.last().and_then(|part| part.as_ident())
}

/// The query that a relation stands for; none for a table.
fn source<'a>(factor: &'a TableFactor, scope: &Scope<'a>) -> Option<(&'a Query, Scope<'a>)> {
    match factor {
        TableFactor::Derived { subquery, .. } => Some((subquery.as_ref(), scope.clone())),
        TableFactor::Table { name, .. } if name.0.len() == 1 => scope.find(last(name)?),
        _ => None,
    }
}
