//! A `*` that decides which columns a query returns, however deep it stands.

use super::sources::{Scope, is_star};
use sqlparser::ast::{Query, Select, SetExpr, Spanned};
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
    of_body(&query.body, &scope.within(query), depth + 1, found);
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
    for item in select.projection.iter().filter(|item| is_star(item)) {
        let Some(sources) = scope.of_star(item, select) else {
            found.places.push(item.span().start);
            continue;
        };
        for source in sources {
            of_query(source.query, &source.scope, depth, found);
        }
    }
}
