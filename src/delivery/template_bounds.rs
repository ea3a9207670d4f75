//! What a template may not say, since the engine's fuel does not bound it:
//! found before the template is compiled, in the engine's own tokens.

use super::template::Unreadable;
use minijinja::machinery::{Token, tokenize};

/// Names, operators and values between two braces. Each can lie one level
/// deeper than the one before, and the engine follows them on the stack: a
/// thread of 2 MiB ends between one and two thousand of them.
const MAX_TOKENS: usize = 200;

/// `{% … %}` in one template: each `elif` lies in the one before, and the same
/// thread ends between five hundred and a thousand of them.
const MAX_STATEMENTS: usize = 100;

/// The first thing in `source` that has no bound, and where. With `in_braces`
/// all of it is one expression, else it is text with templates in it.
pub(super) fn unbounded(source: &str, in_braces: bool) -> Option<Unreadable> {
    let mut tokens = 0;
    let mut statements = 0;
    // What is no token is reported by the compiler.
    for (token, span) in tokenize(source, in_braces, Default::default()).map_while(Result::ok) {
        tokens += 1;
        let message = match token {
            Token::Mul | Token::Pow => {
                "`*` is not available in templates: with a list it has no bound; multiply in the \
                 SQL of the audience"
                    .to_owned()
            }
            Token::TemplateData(_) | Token::VariableStart => {
                tokens = 0;
                continue;
            }
            Token::BlockStart => {
                tokens = 0;
                statements += 1;
                if statements <= MAX_STATEMENTS {
                    continue;
                }
                format!(
                    "a template has at most {MAX_STATEMENTS} `{{% … %}}`; decide in the SQL of \
                     the audience"
                )
            }
            _ if tokens > MAX_TOKENS => format!(
                "an expression has at most {MAX_TOKENS} names, operators and values; calculate \
                 in the SQL of the audience"
            ),
            _ => continue,
        };
        let at = usize::try_from(span.start_offset).unwrap_or(0);
        return Some(Unreadable { message, at });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(source: &str, at: usize) {
        let found = unbounded(source, false).expect("it has no bound");
        assert_eq!(found.at, at, "{}", found.message);
    }

    #[test]
    fn a_list_cannot_be_multiplied_in_whatever_it_is_hidden() {
        refused("{{ [1] * 9 }}", 7);
        refused("* {{ \"}} * \\\" *\" ** 9 }}", 17);
        refused("{{ {1: {2: 3}} }}{% if 2 * 3 %}", 25);
        refused("{% raw %}{{ '{% endraw %}{{ 2 * 3 }}'}}", 30);
        refused("{# {{ ' #}{{ 2 * 3 }}", 15);
    }

    #[test]
    fn what_is_not_multiplied_is_left_alone() {
        for source in [
            "select 2 * 3, '{{ date }}' * 4",
            "{{ 'a * b' }}",
            "{# 2 * 3 #}",
            "{{ open",
            "{{ \u{e9}\u{1f98a} $ }}",
        ] {
            assert!(unbounded(source, false).is_none(), "{source}");
        }
    }

    #[test]
    fn nothing_lies_deeper_than_a_stack_is() {
        let sums = |count| format!("{{{{ 1{} }}}}", "+1".repeat(count));
        assert!(unbounded(&sums(99), false).is_none());
        refused(&sums(100), 203);
        let choices = |count| format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(count));
        assert!(unbounded(&choices(98), false).is_none());
        assert!(unbounded(&choices(99), false).is_some());
        assert!(unbounded(&"{{ 1 }}a".repeat(10_000), false).is_none());
        assert!(unbounded(&"- ".repeat(201), true).is_some());
    }
}
