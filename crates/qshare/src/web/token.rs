//! The token of the API on TCP.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::BASE32_NOPAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Random bytes of a token that qshare makes: 160 bits, 32 base32 characters.
const RANDOM_BYTES: usize = 20;
/// Shorter tokens could be guessed.
const LENGTH_MIN: usize = 16;
const LENGTH_MAX: usize = 512;

/// The secret that a client of the API on TCP proves to know.
#[derive(Clone)]
pub(crate) struct Token(Zeroizing<String>);

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// It cannot be read or created.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Other users may read or change it.
    #[error("{path}: mode {mode:04o}", path = path.display())]
    LooseMode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds no token.
    #[error("{path}: no token", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
    },
}

impl Token {
    /// Draws a token.
    pub(crate) fn random() -> Token {
        let bytes = Zeroizing::new(rand::random::<[u8; RANDOM_BYTES]>());
        Token(Zeroizing::new(
            BASE32_NOPAD.encode(&*bytes).to_ascii_lowercase(),
        ))
    }

    /// Reads a token from a file, or creates the file with a random token (mode 0600).
    ///
    /// # Errors
    ///
    /// [`TokenError`] when the file cannot be used, others may read it, or it holds no token: 16 to
    /// 512 printable ASCII characters without spaces.
    pub(crate) fn load_or_create(path: &Path) -> Result<Token, TokenError> {
        let failed = |cause| TokenError::Io {
            path: path.to_owned(),
            cause,
        };
        match File::open(path) {
            Ok(file) => Token::read(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let token = Token::random();
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(failed)?;
                let line = Zeroizing::new(format!("{}\n", token.expose()));
                file.write_all(line.as_bytes()).map_err(failed)?;
                Ok(token)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn read(path: &Path, file: File) -> Result<Token, TokenError> {
        let failed = |cause| TokenError::Io {
            path: path.to_owned(),
            cause,
        };
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenError::LooseMode {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(String::with_capacity(LENGTH_MAX + 2));
        let mut limited = file.take(LENGTH_MAX as u64 + 2);
        limited.read_to_string(&mut text).map_err(failed)?;
        let token = text.trim();
        let is_valid = (LENGTH_MIN..=LENGTH_MAX).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        match is_valid {
            true => Ok(Token(Zeroizing::new(token.to_owned()))),
            false => Err(TokenError::Invalid {
                path: path.to_owned(),
            }),
        }
    }

    /// Returns the token's text, which is for a terminal or for the owner's file only.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether `claimed` is the token. Takes as long for each wrong text of its length.
    pub(crate) fn is(&self, claimed: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(claimed).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_file_is_created_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let first = Token::load_or_create(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(first.expose().len() >= 32);
        let again = Token::load_or_create(&path).unwrap();
        assert!(again.is(first.expose().as_bytes()));
        assert!(!again.is(Token::random().expose().as_bytes()));
    }

    #[test]
    fn a_token_that_others_may_read_or_that_is_short_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let _ = Token::load_or_create(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let refused = Token::load_or_create(&path);
        assert!(matches!(
            refused,
            Err(TokenError::LooseMode { mode: 0o644, .. })
        ));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for text in ["", "short", "with space in the middle", &"x".repeat(600)] {
            fs::write(&path, text).unwrap();
            let refused = Token::load_or_create(&path);
            assert!(
                matches!(refused, Err(TokenError::Invalid { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_token_is_not_shown_by_debug() {
        let token = Token::random();
        assert!(!format!("{token:?}").contains(token.expose()));
    }
}
