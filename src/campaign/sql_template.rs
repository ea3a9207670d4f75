//! Templates in `audience.sql` and `fresh_when.sql`: checked with the file,
//! rendered with the run.

use super::RunSpec;
use super::activation::{place_of, unreadable_at};
use super::template_parts::{next_template, parts};
use super::yaml::{Field, suggestion};
use crate::audience::{AudienceSpec, Dialect, FreshWhen, Selected, lint, selected_columns};
use crate::delivery::template::{
    Parsed, RUN_NAMES, RunValues, Unreadable, is_template, misuse, render_text, unreadable,
};
use crate::id::RunId;
use jiff::Timestamp;
use minijinja::value::Value;
use minijinja::{Environment, Error};

/// A query of the campaign cannot be rendered for a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} cannot be rendered: {reason}")]
pub struct UnfitSql {
    key: &'static str,
    reason: String,
}

impl RunSpec {
    /// Whom the run asks for: the campaign's SQL as it reads for the run `run`
    /// at `fire_time`, in the words of `dialect`. The same each time.
    pub fn audience_of(
        &self,
        run: &RunId,
        fire_time: Timestamp,
        dialect: Dialect,
    ) -> Result<AudienceSpec, UnfitSql> {
        let values = self.values_of(run, fire_time);
        let sql = rendered(&self.audience.sql, &values, dialect);
        Ok(AudienceSpec {
            key: self.audience.key.clone(),
            sql: sql.map_err(|unreadable| unfit("audience.sql", unreadable))?,
        })
    }

    /// How recent the run's data must be: the campaign's `fresh_when` with its
    /// SQL as it reads for the run `run` at `fire_time`; none if the campaign
    /// has none. The same each time it is asked.
    pub fn fresh_when_of(
        &self,
        run: &RunId,
        fire_time: Timestamp,
        dialect: Dialect,
    ) -> Result<Option<FreshWhen>, UnfitSql> {
        let Some(fresh_when) = &self.fresh_when else {
            return Ok(None);
        };
        let values = self.values_of(run, fire_time);
        let sql = rendered(&fresh_when.sql, &values, dialect);
        Ok(Some(FreshWhen {
            sql: sql.map_err(|unreadable| unfit("fresh_when.sql", unreadable))?,
            ..fresh_when.clone()
        }))
    }

    /// What the templates of the run `run` at `fire_time` see, columns aside.
    pub fn values_of(&self, run: &RunId, fire_time: Timestamp) -> RunValues {
        RunValues {
            campaign: self.campaign.clone(),
            run: run.clone(),
            channel: self.channel.clone(),
            fire_time,
            vars: self.vars.clone(),
        }
    }
}

fn unfit(key: &'static str, unreadable: Unreadable) -> UnfitSql {
    UnfitSql {
        key,
        reason: unreadable.message,
    }
}

/// Reports every problem of the SQL in `field`, which is rendered with the
/// values and read in the dialect of `by`. Returns the columns it selects.
pub(super) fn check(
    field: &Field,
    sql: &str,
    key: Option<&str>,
    by: (&RunValues, Dialect),
) -> Selected {
    let (values, dialect) = by;
    let key = key.unwrap_or_default();
    let masked = masked(sql);
    let problems = lint(&masked, key, dialect);
    let refused = problems.iter().any(|problem| !problem.is_note);
    for problem in problems {
        let (line, column) = (problem.line, problem.column);
        field.at_line(line, column, problem.is_note, problem.message);
    }
    if is_template(sql) {
        let env = engine(values, dialect);
        let wrong = wrong_in(&env, sql);
        for unreadable in &wrong {
            unreadable_at(field, sql, unreadable);
        }
        if wrong.is_empty()
            && !refused
            && let Ok(text) = rendered(sql, values, dialect)
        {
            // The masked text cannot show what a value does to its place.
            let found = lint(&text, key, dialect).into_iter();
            for wrong in found.filter(|found| !found.is_note) {
                field.error(format!("rendered, {}", wrong.message));
            }
        }
    }
    selected_columns(&masked, dialect)
}

/// Everything wrong with the templates in `sql`. The engine stops at the first
/// thing, so each template is tried by itself before all are together.
fn wrong_in(env: &Environment, sql: &str) -> Vec<Unreadable> {
    // What stands between two blocks can name what the first of them defines.
    let by_themselves = !sql.contains("{%");
    let parts = parts(sql).into_iter();
    let wrong: Vec<Unreadable> = parts
        .flat_map(|(at, part)| wrong_in_one(env, part, by_themselves, at))
        .collect();
    match wrong.is_empty() {
        true => wrong_in_one(env, sql, true, 0),
        false => wrong,
    }
}

/// Everything wrong with the template `text`, which stands at the byte `at`:
/// what cannot be read, else each name that is not known (with `names`), else
/// what does not work.
fn wrong_in_one(env: &Environment, text: &str, names: bool, at: usize) -> Vec<Unreadable> {
    let moved = |unreadable: Unreadable| Unreadable {
        at: at + unreadable.at,
        ..unreadable
    };
    let parsed = match Parsed::text_of(env, text) {
        Ok(parsed) => parsed,
        Err(unreadable) => return vec![moved(unreadable)],
    };
    let unknown: Vec<Unreadable> = parsed
        .names()
        .iter()
        .filter(|name| *name == "batch" || !RUN_NAMES.contains(&name.as_str()))
        .map(|name| unknown_name(text, name))
        .collect();
    if !unknown.is_empty() {
        return match names {
            true => unknown.into_iter().map(moved).collect(),
            false => Vec::new(),
        };
    }
    let Parsed::Text(template) = parsed else {
        return Vec::new();
    };
    let tried = render_text(&template, Value::from(()));
    let failed = tried.err().map(|error| moved(unreadable(&error)));
    failed.into_iter().collect()
}

fn unknown_name(text: &str, name: &str) -> Unreadable {
    let known = RUN_NAMES.into_iter().filter(|name| *name != "batch");
    let right = match suggestion(name, known) {
        nothing if nothing.is_empty() => {
            format!("; give it under `vars` and write `var('{name}')`")
        }
        right => right,
    };
    Unreadable {
        message: format!("`{name}` is not known in SQL templates{right}"),
        at: place_of(text, name),
    }
}

fn rendered(sql: &str, values: &RunValues, dialect: Dialect) -> Result<String, Unreadable> {
    if !is_template(sql) {
        return Ok(sql.to_owned());
    }
    let env = engine(values, dialect);
    let Parsed::Text(template) = Parsed::text_of(&env, sql)? else {
        return Ok(sql.to_owned());
    };
    render_text(&template, Value::from(())).map_err(|error| unreadable(&error))
}

/// The engine of SQL: what it writes cannot end a literal or begin a comment,
/// unless it is a literal itself.
fn engine<'s>(values: &RunValues, dialect: Dialect) -> Environment<'s> {
    let mut env = crate::delivery::template::engine(values);
    env.add_filter("literal", move |value: Value| {
        let literal = dialect.literal(&value.to_string());
        let literal = literal.map_err(|bad| misuse(bad.to_string()))?;
        Ok::<_, Error>(Value::from_safe_string(literal))
    });
    env.set_formatter(|out, _, value| {
        if value.is_undefined() {
            return Err(minijinja::ErrorKind::UndefinedError.into());
        }
        let text = value.to_string();
        if !value.is_safe() && !is_plain(&text) {
            return Err(misuse(
                "a value that is more than letters, digits, blanks and `_ . : -` needs \
                 `| literal`, which writes its own quotes"
                    .to_owned(),
            ));
        }
        out.write_str(&text).map_err(Into::into)
    });
    env
}

/// Whether `text` can stand anywhere in SQL. Two hyphens would begin a comment.
fn is_plain(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_ .:-".contains(c);
    text.chars().all(is_plain) && !text.contains("--")
}

/// `sql` with a name of the same length where templates stand, so that it
/// reads as SQL and every place in it stays.
fn masked(sql: &str) -> String {
    let mut masked = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some((before, inner, after)) = next_template(rest) {
        masked.push_str(before);
        let is_value = inner.starts_with("{{");
        let mut on_first_line = true;
        for character in inner.chars() {
            on_first_line &= character != '\n';
            masked.push(match character {
                '\n' => '\n',
                _ if is_value && on_first_line => 'x',
                _ => ' ',
            });
        }
        rest = after;
    }
    masked.push_str(rest);
    masked
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values() -> RunValues {
        let serde_json::Value::Object(vars) =
            json!({"country": "AT", "quoted": "O'Neil\\", "n": 5, "comment": "a--b"})
        else {
            unreachable!("an object was written");
        };
        RunValues {
            campaign: "winback".parse().unwrap(),
            run: "winback@20261122T140000Z".parse().unwrap(),
            channel: "email".to_owned(),
            fire_time: "2026-11-22T14:00:00Z".parse().unwrap(),
            vars,
        }
    }

    #[track_caller]
    fn check(sql: &str, expect: &str) {
        let text = rendered(sql, &values(), Dialect::Redshift);
        assert_eq!(text.unwrap_or_else(|error| error.message), expect);
    }

    #[test]
    fn times_are_relative_to_the_fire_time() {
        check("t < '{{ days_ago(90) }}'", "t < '2026-08-24 14:00:00'");
        check("'{{ hours_ago(15) }}'", "'2026-11-21 23:00:00'");
        check(
            "'{{ date }}' '{{ fire_time }}'",
            "'2026-11-22' '2026-11-22 14:00:00'",
        );
    }

    #[test]
    fn a_var_is_plain_or_a_literal() {
        check("c = '{{ var('country') }}'", "c = 'AT'");
        check("limit {{ var('n') }}", "limit 5");
        check("n = {{ var('quoted') | literal }}", "n = 'O''Neil\\\\'");
        for refused in ["'{{ var('quoted') }}'", "{{ var('comment') }}"] {
            let error = rendered(refused, &values(), Dialect::Redshift).unwrap_err();
            assert!(error.message.contains("`| literal`"), "{}", error.message);
        }
    }

    #[test]
    fn sql_without_a_template_is_untouched() {
        check("select '{1,2}' -- }}\n", "select '{1,2}' -- }}\n");
    }

    #[test]
    fn a_masked_text_keeps_its_places() {
        assert_eq!(
            masked("a < '{{ days_ago(9) }}' and {{ var(\"}}\") }}{% if x %}b"),
            "a < 'xxxxxxxxxxxxxxxxx' and xxxxxxxxxxxxxxx          b"
        );
        assert_eq!(masked("{{ a\n + b }}c"), "xxxx\n       c");
        assert_eq!(masked("'{1}' {{ open"), "'{1}' {{ open");
    }

    proptest::proptest! {
        #[test]
        fn no_value_ends_its_literal(text in "[-'\\\\a-z0-9;\\n\u{e9}]{0,12}") {
            let mut values = values();
            values.vars.insert("x".to_owned(), json!(text));
            let literal = rendered("{{ var('x') | literal }}", &values, Dialect::Redshift);
            proptest::prop_assert_eq!(
                literal.unwrap_or_else(|error| error.message),
                Dialect::Redshift.literal(&text).unwrap()
            );
            if let Ok(bare) = rendered("{{ var('x') }}", &values, Dialect::Redshift) {
                proptest::prop_assert!(is_plain(&bare));
                proptest::prop_assert_eq!(bare, text);
            }
        }

        #[test]
        fn masking_moves_nothing(sql in "[a{}%#'\"\\n \u{e9}]{0,40}") {
            let masked = masked(&sql);
            let lengths = |text: &str| -> Vec<usize> {
                text.split('\n').map(|line| line.chars().count()).collect()
            };
            proptest::prop_assert_eq!(lengths(&masked), lengths(&sql));
        }
    }

    #[test]
    fn a_run_asks_the_same_however_late_it_is_carried() {
        let mut spec = crate::campaign::run_spec::tests::spec();
        spec.audience.sql = "select id from t where seen > '{{ days_ago(1) }}'".to_owned();
        let ask = |spec: &RunSpec| {
            let run = values().run;
            spec.audience_of(&run, values().fire_time, Dialect::Sqlite)
                .unwrap()
                .sql
        };
        let stored = RunSpec::from_json(&spec.to_json()).unwrap();
        assert_eq!(ask(&stored), ask(&spec));
        assert!(ask(&stored).ends_with("'2026-11-21 14:00:00'"));
        assert!(stored.audience.sql.contains("{{ days_ago(1) }}"));
    }

    #[test]
    fn how_recent_data_must_be_is_asked_relative_to_the_fire_time() {
        let mut spec = crate::campaign::run_spec::tests::spec();
        let (run, at) = (values().run, values().fire_time);
        let ask = |spec: &RunSpec| spec.fresh_when_of(&run, at, Dialect::Redshift);
        assert_eq!(ask(&spec), Ok(None));
        let fresh_when = |sql: &str| FreshWhen {
            sql: sql.to_owned(),
            max_age_secs: 60,
            wait_secs: 0,
        };
        spec.vars = values().vars;
        let by_template = "select max(at) from t where at <= '{{ hours_ago(1) }}' \
             and day = '{{ date }}' and land = {{ var('country') | literal }}";
        spec.fresh_when = Some(fresh_when(by_template));
        let rendered = "select max(at) from t where at <= '2026-11-22 13:00:00' \
             and day = '2026-11-22' and land = 'AT'";
        assert_eq!(ask(&spec), Ok(Some(fresh_when(rendered))));
        spec.fresh_when = Some(fresh_when("select '{{ var('quoted') }}'"));
        let refused = ask(&spec).unwrap_err().to_string();
        assert!(refused.starts_with("fresh_when.sql cannot"), "{refused}");
    }
}
