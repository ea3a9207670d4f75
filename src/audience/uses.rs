//! What a campaign's query names, as far as its text tells.

use super::Dialect;
use super::reading::{Reading, parsed};
use sqlparser::ast::visit_relations;
use sqlparser::tokenizer::Token;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// The relations that a query reads, and all names in it. In lower case, as
/// databases take names without quotes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uses {
    relations: BTreeSet<String>,
    words: BTreeSet<String>,
}

impl Uses {
    /// What `sql` uses. Of SQL that our parser does not know, the relations are
    /// not known.
    pub fn of(sql: &str, dialect: Dialect) -> Self {
        let mut relations = BTreeSet::new();
        let statements = parsed(sql, dialect).unwrap_or_default();
        let seen: ControlFlow<()> = visit_relations(&statements, |name| {
            let parts = name.0.iter().filter_map(|part| part.as_ident());
            let parts: Vec<String> = parts.map(|part| part.value.to_lowercase()).collect();
            relations.insert(parts.join("."));
            ControlFlow::Continue(())
        });
        debug_assert_eq!(seen, ControlFlow::Continue(()));
        let reading = Reading::of(dialect, sql);
        let words = reading.words().filter_map(|token| match &token.token {
            Token::Word(word) => Some(word.value.to_lowercase()),
            _ => None,
        });
        Self {
            words: words.collect(),
            relations,
        }
    }

    /// Whether the relation `name` of the schema `schema` is read; without a
    /// schema in the query, by its name alone.
    pub fn reads(&self, schema: &str, name: &str) -> bool {
        is_named(self.relations.iter().map(String::as_str), schema, name)
    }

    /// Whether the column `name` is named, of whatever relation.
    pub fn names(&self, name: &str) -> bool {
        self.words.contains(&name.to_lowercase())
    }
}

/// Whether one of `names`, as queries write them, is the relation `name` of the
/// schema `schema`.
pub fn is_named<'n>(names: impl IntoIterator<Item = &'n str>, schema: &str, name: &str) -> bool {
    let whole = format!("{schema}.{name}").to_lowercase();
    let name = name.to_lowercase();
    names.into_iter().any(|other| {
        let other = other.replace('"', "").to_lowercase();
        other == whole || other == name || other.ends_with(&format!(".{whole}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_uses_the_relations_and_the_columns_that_it_names() {
        let sql = "with recent as (select id from Shared.Orders where total > 1) \
                   select p.Id, \"eMail\" from db.shared.people p join recent r on r.id = p.id";
        let uses = Uses::of(sql, Dialect::Redshift);
        for (schema, name, is_read) in [
            ("shared", "orders", true),
            ("shared", "people", true),
            ("other", "people", false),
            ("shared", "visits", false),
        ] {
            assert_eq!(uses.reads(schema, name), is_read, "{schema}.{name}");
        }
        assert!(uses.names("email") && uses.names("total") && uses.names("ID"));
        assert!(!uses.names("phone"));
        assert!(is_named(["people"], "public", "people"));
    }
}
