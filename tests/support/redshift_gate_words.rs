//! SQL in words, as Redshift reads it: comments left out, and literals with
//! their backslashes understood, so that no rule is misled by what is inside.

/// What a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or a plain name.
    Plain,
    /// A name in double quotes.
    Quoted,
    /// A string.
    Literal,
    /// A number.
    Number,
    /// `$1`.
    Bind,
    /// One character, or `::`.
    Sign,
}

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub kind: Kind,
    /// As it is compared: plain words in lower case, names without their
    /// quotes, literals empty.
    pub text: String,
    /// Where it is, in bytes.
    pub start: usize,
    pub end: usize,
    /// The word that opens the innermost parenthesis around it.
    pub within: Option<usize>,
}

/// The words of `sql`.
pub fn words(sql: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut at = 0;
    while let Some(c) = sql[at..].chars().next() {
        let rest = &sql[at..];
        let (kind, length) = if c.is_whitespace() || c == '\0' {
            at += c.len_utf8();
            continue;
        } else if rest.starts_with("--") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        } else if rest.starts_with("/*") {
            at += comment(rest);
            continue;
        } else if c == '\'' {
            (Kind::Literal, closed_by(rest, b'\'', true))
        } else if c == '"' {
            (Kind::Quoted, closed_by(rest, b'"', false))
        } else if let Some(length) = dollar_quoted(rest) {
            (Kind::Literal, length)
        } else if c == '$' {
            (Kind::Bind, 1 + run(&rest[1..], |c| c.is_ascii_digit()))
        } else if c.is_alphabetic() || c == '_' {
            let name = run(rest, |c| c.is_alphanumeric() || c == '_' || c == '$');
            (Kind::Plain, name)
        } else if c.is_ascii_digit() {
            (
                Kind::Number,
                run(rest, |c| c.is_ascii_alphanumeric() || c == '.'),
            )
        } else {
            let double = rest.starts_with("::");
            (Kind::Sign, if double { 2 } else { c.len_utf8() })
        };
        if c == ')' {
            open.pop();
        }
        let text = &rest[..length];
        words.push(Word {
            kind,
            text: match kind {
                Kind::Literal => String::new(),
                Kind::Quoted => text.trim_matches('"').replace("\"\"", "\""),
                _ => text.to_lowercase(),
            },
            start: at,
            end: at + length,
            within: open.last().copied(),
        });
        if c == '(' {
            open.push(words.len() - 1);
        }
        at += length;
    }
    words
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// The length of a comment; they nest.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

/// The length of what is between two `quote`s, both included. Doubled they
/// are none; a backslash takes the next character's meaning away.
fn closed_by(text: &str, quote: u8, has_escapes: bool) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if has_escapes => at += 2,
            c if c == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn dollar_quoted(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('$')?;
    let tag = run(rest, |c| c.is_ascii_alphabetic() || c == '_');
    let mark = &text[..tag + 2];
    if !mark.ends_with('$') {
        return None;
    }
    let end = text[mark.len()..].find(mark)?;
    Some(end + 2 * mark.len())
}
