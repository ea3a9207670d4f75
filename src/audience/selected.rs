//! Which columns a query returns, as far as its text tells.

use super::Dialect;
use super::reading::parsed;
use super::sources::{Scope, Source, is_star};
use sqlparser::ast::{Expr, Query, Select, SelectItem, SetExpr, Statement};
use std::collections::HashMap;

/// How deep queries are followed into each other; nobody writes more.
const MAX_DEPTH: usize = 32;

/// How many columns are followed. A `*` over two that are each a `*` over two
/// doubles them with every line; a table holds fewer.
const MAX_COLUMNS: usize = 2_000;

/// The columns a query returns, as far as its text tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selected {
    /// Those with a name.
    pub names: Vec<String>,
    /// Whether there are no others.
    pub is_whole: bool,
}

/// A column of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// By the query.
    Plainly(String),
    /// By the database, after what is calculated: most of them do.
    Presumably(String),
    /// As the database likes.
    Somehow,
}

impl Named {
    /// The name, if anything is known of it.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Plainly(name) | Self::Presumably(name) => Some(name),
            Self::Somehow => None,
        }
    }
}

/// The columns that `sql` returns, as far as its text tells.
pub fn selected_columns(sql: &str, dialect: Dialect) -> Selected {
    let statements = parsed(sql, dialect).unwrap_or_default();
    let Some(Statement::Query(query)) = statements.first() else {
        return Selected::default();
    };
    let Some(columns) = columns_of(query, dialect) else {
        return Selected::default();
    };
    let names = columns.iter().filter_map(Named::name).map(str::to_owned);
    Selected {
        names: names.collect(),
        is_whole: columns.iter().all(|c| matches!(c, Named::Plainly(_))),
    }
}

/// The columns that `query` returns, those that its `*` stand for included;
/// none where one of them stands for a table, or for too many.
pub(super) fn columns_of(query: &Query, dialect: Dialect) -> Option<Vec<Named>> {
    let mut followed = Followed {
        dialect,
        known: HashMap::new(),
    };
    followed.query(query, &Scope::default(), 0)
}

/// The `select` that names a query's columns: in a `union` the first.
pub(super) fn naming_select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => naming_select(&query.body),
        SetExpr::SetOperation { left, .. } => naming_select(left),
        _ => None,
    }
}

/// The queries followed so far, each once, however often it is named.
struct Followed {
    dialect: Dialect,
    known: HashMap<*const Query, Option<Vec<Named>>>,
}

impl Followed {
    fn query<'a>(
        &mut self,
        query: &'a Query,
        scope: &Scope<'a>,
        depth: usize,
    ) -> Option<Vec<Named>> {
        if depth > MAX_DEPTH {
            return None;
        }
        let at = std::ptr::from_ref(query);
        if let Some(known) = self.known.get(&at) {
            return known.clone();
        }
        let columns = self.body(&query.body, &scope.within(query), depth + 1);
        let columns = columns.filter(|columns| columns.len() <= MAX_COLUMNS);
        self.known.insert(at, columns.clone());
        columns
    }

    fn body<'a>(
        &mut self,
        body: &'a SetExpr,
        scope: &Scope<'a>,
        depth: usize,
    ) -> Option<Vec<Named>> {
        match body {
            SetExpr::Select(select) => self.select(select, scope, depth),
            SetExpr::Query(query) => self.query(query, scope, depth),
            SetExpr::SetOperation { left, .. } if depth <= MAX_DEPTH => {
                self.body(left, scope, depth + 1)
            }
            _ => None,
        }
    }

    fn select<'a>(
        &mut self,
        select: &'a Select,
        scope: &Scope<'a>,
        depth: usize,
    ) -> Option<Vec<Named>> {
        let mut columns = Vec::new();
        for item in &select.projection {
            if !is_star(item) {
                columns.push(named(item, self.dialect));
                continue;
            }
            if leaves_some_out(item) {
                return None;
            }
            for source in scope.of_star(item, select)? {
                columns.extend(self.source(&source, depth)?);
                if columns.len() > MAX_COLUMNS {
                    return None;
                }
            }
        }
        Some(columns)
    }

    /// The columns of a source under the names it gives them.
    fn source(&mut self, source: &Source<'_>, depth: usize) -> Option<Vec<Named>> {
        if source.is_reshaped {
            return None;
        }
        let mut columns = self.query(source.query, &source.scope, depth)?;
        for alias in &source.aliases {
            for (column, name) in columns.iter_mut().zip(&alias.columns) {
                *column = Named::Plainly(name.name.value.clone());
            }
        }
        Some(columns)
    }
}

/// Whether a `*` says more than itself: `exclude`, `rename` and the like.
fn leaves_some_out(item: &SelectItem) -> bool {
    match item {
        SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => {
            !options.to_string().is_empty()
        }
        _ => false,
    }
}

fn named(item: &SelectItem, dialect: Dialect) -> Named {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Named::Plainly(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Named::Plainly(name.value.clone()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(path)) => path
            .last()
            .map_or(Named::Somehow, |name| Named::Plainly(name.value.clone())),
        SelectItem::UnnamedExpr(expression) if dialect != Dialect::Sqlite => {
            presumed(expression).map_or(Named::Somehow, Named::Presumably)
        }
        _ => Named::Somehow,
    }
}

/// PostgreSQL and Redshift call a cast after what is cast, and a call after
/// its function.
fn presumed(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Identifier(name) => Some(name.value.clone()),
        Expr::CompoundIdentifier(path) => path.last().map(|name| name.value.clone()),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => presumed(expr),
        Expr::Function(call) => {
            let name = call.name.0.last()?.as_ident()?;
            Some(name.value.clone())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sql: &str, expect: &[&str], is_whole: bool) {
        let selected = selected_columns(sql, Dialect::Redshift);
        assert_eq!(selected.names, expect, "{sql}");
        assert_eq!(selected.is_whole, is_whole, "{sql}");
    }

    #[test]
    fn the_selected_columns_are_known_as_far_as_they_have_names() {
        check(
            "select id, p.mail as m, q.x from p, q",
            &["id", "m", "x"],
            true,
        );
        check("with q as (select 1 as y) select id from q", &["id"], true);
        check("select id, 1 + 1 from p", &["id"], false);
        check("select id, p.* from p", &[], false);
        check("no sql", &[], false);
    }

    #[test]
    fn what_a_database_names_by_itself_is_presumed_where_it_does() {
        let sql = "select p.id::varchar, count(*), (n) from p group by 1, 3";
        check(sql, &["id", "count", "n"], false);
        let sqlite = selected_columns("select cast(id as text), n from p", Dialect::Sqlite);
        assert_eq!(sqlite.names, ["n"]);
    }

    #[test]
    fn a_star_over_a_query_that_names_its_columns_stands_for_them() {
        check("select * from (select a, b from p) q", &["a", "b"], true);
        check(
            "with c(x, y) as (select a, b from p), d as (select c.*, 1 as z from c) \
             select q.* from (select * from d) as q(k) join r on true",
            &["k", "y", "z"],
            true,
        );
        check(
            "select * from (select a from p union all select b from q) u",
            &["a"],
            true,
        );
        check("select * exclude (a) from (select a from p) q", &[], false);
    }

    #[test]
    fn stars_that_double_at_every_step_are_given_up() {
        let step = |n: usize| format!(", c{} as (select a.*, b.* from c{n} a, c{n} b)", n + 1);
        let steps: String = (0..25).map(step).collect();
        let sql = format!("with c0 as (select id from p){steps} select * from c25");
        check(&sql, &[], false);
    }
}
