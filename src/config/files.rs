//! Secrets that stand in files, as Docker, Kubernetes and systemd hand them over.

use std::{env, fs, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::reading::Reading;

/// Ends the `--help` of every process.
pub(super) const FILES: &str = "A secret may stand in a file: each setting that holds one (…_URL with a \
    password, …_KEYS, …_SECRETS) is read from the file that its name with _FILE names, as \
    TOKEN_KEYS_FILE=/run/secrets/token-keys.";

/// Where a setting's file is, if it is said to be in one.
pub(super) type FileOf = Box<dyn Fn(&str) -> Option<PathBuf>>;

/// What the environment says of `NAME_FILE`. One that is set to nothing is not set.
pub(super) fn file_of(name: &str) -> Option<PathBuf> {
    env::var_os(format!("{name}_FILE")).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A line about this setting has been noted.
pub(super) struct Noted;

impl Reading {
    /// The secret as it was given, or as it stands in its file, without the newline at its end.
    ///
    /// Neither the path nor the content is ever told: either may be a secret that was put in the
    /// wrong place.
    pub(super) fn secret(
        &mut self,
        name: &str,
        given: Option<&SecretString>,
    ) -> Result<Option<SecretString>, Noted> {
        let given = given.filter(|secret| !secret.expose_secret().is_empty());
        let Some(path) = (self.file_of)(name) else {
            return Ok(given.cloned());
        };
        if given.is_some() {
            self.note(format!("{name} and {name}_FILE are both set; one of them is enough"));
            return Err(Noted);
        }
        match fs::read_to_string(path) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                Ok(Some(SecretString::from(text)))
            }
            Err(error) => {
                self.note(format!("{name}_FILE cannot be read: {}", error.kind()));
                Err(Noted)
            }
        }
    }

    /// Reads one secret; where it is missing or wrong, notes what it should have been.
    pub(super) fn take_secret<T>(
        &mut self,
        name: &str,
        given: Option<&SecretString>,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let secret = self.secret(name, given).ok()?;
        self.take(name, secret.as_ref().map(ExposeSecret::expose_secret), wanted, read)
    }
}
