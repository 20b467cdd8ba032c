//! [`Secret`]: a configured text that may name environment variables and files, and never shows itself.
//!
//! `${NAME}` stands for an environment variable, `${file:/run/secrets/token}` for the content of a file (without the
//! newline at its end), `$${` for `${` itself. References are looked up when the text is needed, not when the
//! configuration is read: `tidemill check` runs where the secrets are not, and a file that changed is read again. Two are
//! the same if they are written alike.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use serde::Deserialize;

/// Most bytes read from a file of a secret.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A text with references. `Debug` shows neither its text nor its values.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Secret {
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
    File(PathBuf),
}

/// Why a secret cannot be read. Names the reference, never the value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// `${` without its `}`.
    #[error("`${{` without its `}}`")]
    Open,
    /// Nothing, or something that is no name, between the braces.
    #[error("`${{{0}}}` names neither an environment variable nor a file (`${{file:/path}}`)")]
    Name(String),
    /// The variable is absent or not UTF-8.
    #[error("environment variable {0} is not set, or is not UTF-8")]
    Variable(String),
    /// The file cannot be read.
    #[error("secret file {0}: {1}")]
    File(String, std::io::Error),
}

impl Secret {
    /// Reads a text with references. None is looked up.
    ///
    /// # Errors
    /// A reference is none.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, reference) = rest.split_at(at);
            let body = reference.strip_prefix("${").unwrap_or(reference);
            if let Some(before) = before.strip_suffix('$') {
                plain.push_str(before);
                plain.push_str("${");
                rest = body;
                continue;
            }
            plain.push_str(before);
            let (name, after) = body.split_once('}').ok_or(SecretError::Open)?;
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(reference_to(name)?);
            rest = after;
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self { parts })
    }

    /// The text with every reference replaced by its value.
    ///
    /// # Errors
    /// A variable or a file is not there.
    pub fn reveal(&self) -> Result<String, SecretError> {
        self.reveal_with(str::to_owned)
    }

    /// Like [`Secret::reveal`], passing each value through `encode` (to put it into a URL, for example).
    pub(crate) fn reveal_with(&self, encode: impl Fn(&str) -> String) -> Result<String, SecretError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable(name) => {
                    let value = std::env::var(name).map_err(|_| SecretError::Variable(name.clone()))?;
                    out.push_str(&encode(&value));
                }
                Part::File(path) => out.push_str(&encode(&read(path)?)),
            }
        }
        Ok(out)
    }

    /// The text with every reference replaced by `stand_in`, to check its form.
    pub(crate) fn with_stand_in(&self, stand_in: &str) -> String {
        self.parts.iter().map(|part| if let Part::Text(text) = part { text } else { stand_in }).collect()
    }
}

fn reference_to(name: &str) -> Result<Part, SecretError> {
    if let Some(path) = name.strip_prefix("file:").filter(|path| !path.is_empty()) {
        return Ok(Part::File(PathBuf::from(path)));
    }
    let named = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if named { Ok(Part::Variable(name.to_owned())) } else { Err(SecretError::Name(name.to_owned())) }
}

fn read(path: &PathBuf) -> Result<String, SecretError> {
    let failed = |error| SecretError::File(path.display().to_string(), error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

impl TryFrom<String> for Secret {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_and_escapes_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let text = format!("a$b ${{file:{}}} $${{HOME}} ${{PATH}}!", path.display());
        let secret = Secret::parse(&text).unwrap();
        let value = std::env::var("PATH").unwrap();
        assert_eq!(secret.reveal().unwrap(), format!("a$b s3cret ${{HOME}} {value}!"));
        assert_eq!(secret.with_stand_in("x"), "a$b x ${HOME} x!");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn bad_references_are_refused() {
        assert!(matches!(Secret::parse("${OPEN"), Err(SecretError::Open)));
        assert!(matches!(Secret::parse("${}"), Err(SecretError::Name(_))));
        assert!(matches!(Secret::parse("${a b}"), Err(SecretError::Name(_))));
        assert!(matches!(Secret::parse("${file:}"), Err(SecretError::Name(_))));
    }

    #[test]
    fn what_is_absent_is_named() {
        let error = Secret::parse("${TIDEMILL_SURELY_UNSET}").unwrap().reveal().unwrap_err();
        assert!(error.to_string().contains("TIDEMILL_SURELY_UNSET"));
        let error = Secret::parse("${file:/nowhere/at/all}").unwrap().reveal().unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"));
    }
}
