//! Secrets: references in the file, values only where they are used.

use crate::campaign::yaml::Field;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest secret read from a file; certificates with keys are shorter.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A secret, as the file gives it: a reference, or the value itself.
#[derive(Clone)]
pub struct Secret {
    /// The key that holds it, for errors.
    key: String,
    origin: Origin,
}

#[derive(Clone)]
enum Origin {
    Env(String),
    File(PathBuf),
    Credential(String),
    Literal(SecretString),
}

/// Settings that cannot be used here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {reason}")]
pub struct SettingsError {
    /// The key, as in `connectors.warehouse.auth.password`.
    pub key: String,
    reason: String,
}

impl Secret {
    /// Reads a secret or reference; the problem of a bad one never quotes it.
    pub(super) fn read(field: &Field) -> Option<Self> {
        Self::of(field, field.text()?)
    }

    /// The same with the part of the field that holds it.
    pub(super) fn of(field: &Field, text: &str) -> Option<Self> {
        let key = field.path().to_owned();
        let refuse = |why: &str| {
            field.error(format!("`{}` {why}", field.path()));
            None
        };
        if text.is_empty() {
            return refuse("is empty");
        }
        if !text.contains("${") {
            let origin = Origin::Literal(SecretString::from(text));
            return Some(Self { key, origin });
        }
        let inner = text.strip_prefix("${").and_then(|t| t.strip_suffix('}'));
        let parts = inner.and_then(|inner| inner.split_once(':'));
        let origin = match parts {
            Some(("env", name)) if is_name(name) => Origin::Env(name.to_owned()),
            Some(("credential", name)) if is_name(name) => Origin::Credential(name.to_owned()),
            Some(("file", path)) if !path.is_empty() && !path.contains("${") => {
                Origin::File(PathBuf::from(path))
            }
            _ => {
                return refuse(
                    "must be a secret, or one of `${env:NAME}`, `${file:/path}`, `${credential:NAME}` and nothing beside it",
                );
            }
        };
        Some(Self { key, origin })
    }

    /// The key that holds it, as in `connectors.warehouse.auth.password`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value, if it stands in the file itself.
    pub(super) fn literal(&self) -> Option<&SecretString> {
        match &self.origin {
            Origin::Literal(value) => Some(value),
            Origin::Env(_) | Origin::File(_) | Origin::Credential(_) => None,
        }
    }

    /// The value.
    pub fn resolve(&self, secrets: &Secrets) -> Result<SecretString, SettingsError> {
        let value = match &self.origin {
            Origin::Literal(value) => return Ok(value.clone()),
            Origin::Env(name) => match secrets.variable(name) {
                Some(value) => value.to_owned(),
                None => return Err(self.error(format!("needs the environment variable {name}"))),
            },
            Origin::File(path) => self.read_file(path)?,
            Origin::Credential(name) => match secrets.variable("CREDENTIALS_DIRECTORY") {
                Some(folder) => self.read_file(&Path::new(folder).join(name))?,
                None => {
                    return Err(self.error(format!(
                        "needs the credential {name}, but $CREDENTIALS_DIRECTORY is not set"
                    )));
                }
            },
        };
        if value.is_empty() {
            return Err(self.error("is an empty secret"));
        }
        Ok(SecretString::from(value))
    }

    /// An error about this secret.
    pub(super) fn error(&self, reason: impl Into<String>) -> SettingsError {
        SettingsError {
            key: self.key.clone(),
            reason: reason.into(),
        }
    }

    pub(super) fn each_path(&mut self, change: &impl Fn(&mut PathBuf)) {
        if let Origin::File(path) = &mut self.origin {
            change(path);
        }
    }

    fn read_file(&self, path: &Path) -> Result<String, SettingsError> {
        let shown = path.display();
        let mut text = String::new();
        let read = File::open(path)
            .and_then(|file| file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| self.error(format!("needs the secret in {shown}: {error}")))?;
        if read as u64 > MAX_SECRET_BYTES {
            return Err(self.error(format!("needs the secret in {shown}, which is too long")));
        }
        let cut = text.strip_suffix('\n').unwrap_or(&text);
        let cut = cut.strip_suffix('\r').unwrap_or(cut);
        Ok(cut.to_owned())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
            && match (&self.origin, &other.origin) {
                (Origin::Env(one), Origin::Env(two))
                | (Origin::Credential(one), Origin::Credential(two)) => one == two,
                (Origin::File(one), Origin::File(two)) => one == two,
                (Origin::Literal(one), Origin::Literal(two)) => {
                    one.expose_secret() == two.expose_secret()
                }
                _ => false,
            }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Env(name) => write!(f, "${{env:{name}}}"),
            Origin::File(path) => write!(f, "${{file:{}}}", path.display()),
            Origin::Credential(name) => write!(f, "${{credential:{name}}}"),
            Origin::Literal(_) => f.write_str("[a secret]"),
        }
    }
}

/// A name that is safe as a variable and as a file of the credentials folder.
fn is_name(name: &str) -> bool {
    let sound = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(sound)
}

/// Where references to secrets lead: this process's environment.
#[derive(Clone, Default)]
pub struct Secrets {
    variables: BTreeMap<String, SecretString>,
}

impl Secrets {
    /// The environment of this process; the one place that reads it.
    pub fn from_process() -> Self {
        let text = |value: &OsStr| value.to_str().map(str::to_owned);
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((text(&name)?, SecretString::from(text(&value)?))));
        Self {
            variables: variables.collect(),
        }
    }

    /// An environment made of `variables`, for trying things out.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables = variables.into_iter();
        Self {
            variables: variables
                .map(|(name, value)| (name.to_owned(), SecretString::from(value)))
                .collect(),
        }
    }

    /// The variable `name`, if it is set to something.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?.expose_secret();
        (!value.is_empty()).then_some(value)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}
