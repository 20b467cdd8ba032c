//! The password file: what `tidemill passwd` writes, and who may log in by it.
//!
//! One user a line: `user:$argon2id$…` and, so that the user can also log in with SCRAM, `:SCRAM-SHA-256$…` after
//! it. Neither gives the password away. Empty lines and lines that begin with `#` are passed over.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use bytestring::ByteString;
use foldhash::{HashMap, HashMapExt};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::super::stamp::Stamp;
use super::cache::Memory;
use super::scram::Credentials;

/// Largest password file in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How long a password that was right needs no second look.
const VERIFIED_FOR: Duration = Duration::from_secs(3600);
/// Passwords that were right and are remembered, as keyed hashes.
const VERIFIED_MAX: usize = 100_000;

/// Why a password file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    /// It cannot be read or written.
    #[error("password file {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A line of it is none.
    #[error("password file {}:{line}: {what}; write it with `tidemill passwd`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A name that cannot be in it.
    #[error("user name `{0}`: it cannot be empty, begin with `#`, or have `:` or a line break in it")]
    Name(String),
    /// A password could not be hashed.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// One user.
#[derive(Clone)]
struct User {
    hash: Arc<str>,
    scram: Option<Credentials>,
}

/// All users of a file.
#[derive(Clone, Default)]
pub struct Users(HashMap<String, User>);

impl Users {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or one of its lines is none.
    pub fn read(path: &Path) -> Result<Users, PasswordFileError> {
        let failed = |error| PasswordFileError::File { path: path.to_owned(), error };
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if read as u64 > FILE_BYTES_MAX {
            return Err(failed(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes"))));
        }
        Users::parse(&text).map_err(|(line, what)| PasswordFileError::Line {
            path: path.to_owned(),
            line,
            what,
        })
    }

    fn parse(text: &str) -> Result<Users, (usize, &'static str)> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| (index + 1, what);
            let (name, secrets) = line.split_once(':').ok_or(wrong("it has no `:`"))?;
            let (hash, scram) = match secrets.split_once(':') {
                Some((hash, scram)) => (hash, Some(scram)),
                None => (secrets, None),
            };
            if name.is_empty() {
                return Err(wrong("it has no user name"));
            }
            let parsed = PasswordHash::new(hash)
                .map_err(|_| wrong("what follows the user name is no password hash"))?;
            if parsed.algorithm.as_str() != "argon2id" {
                return Err(wrong("its password hash is not of argon2id"));
            }
            let scram = match scram {
                Some(text) => Some(Credentials::parse(text).ok_or(wrong("its SCRAM credentials are none"))?),
                None => None,
            };
            if users.insert(name.to_owned(), User { hash: hash.into(), scram }).is_some() {
                return Err(wrong("the user was there before"));
            }
        }
        Ok(Users(users))
    }

    /// Gives a user a password; whether the user is new. Without `scram`, or if the password is not for it, the user
    /// cannot log in with SCRAM.
    ///
    /// # Errors
    /// The name cannot be one, or the hash fails.
    pub fn set(&mut self, name: &str, password: &str, scram: bool) -> Result<bool, PasswordFileError> {
        if name.is_empty() || name.starts_with('#') || name.contains([':', '\n', '\r', '\0']) {
            return Err(PasswordFileError::Name(name.to_owned()));
        }
        let hash: argon2::password_hash::phc::PasswordHash = Argon2::default()
            .hash_password(password.as_bytes())
            .map_err(|error| PasswordFileError::Hash(error.to_string()))?;
        let scram = if scram { Credentials::of_password(password) } else { None };
        let user = User { hash: hash.to_string().into(), scram };
        Ok(self.0.insert(name.to_owned(), user).is_none())
    }

    /// Whether a user can log in with SCRAM.
    #[must_use]
    pub fn has_scram(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|user| user.scram.is_some())
    }

    /// Takes a user away; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Writes the file anew in one step. A new one is readable by its owner alone. Owner and group stay, if the system
    /// lets us, and so does who may read it: the administrator writes what the hub's user reads.
    ///
    /// # Errors
    /// The file or its directory cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PasswordFileError> {
        let mut names: Vec<(&String, &User)> = self.0.iter().collect();
        names.sort_by_key(|(name, _)| *name);
        let mut text = String::new();
        for (name, User { hash, scram }) in names {
            text.extend([name, ":", hash]);
            if let Some(scram) = scram {
                text.extend([":", &scram.to_text()]);
            }
            text.push('\n');
        }
        let failed = |error| PasswordFileError::File { path: path.to_owned(), error };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A temporary file is made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
        if let Ok(before) = std::fs::metadata(path) {
            // Others than the administrator may not: the file is then theirs.
            let _ = fchown(&file, None, Some(before.gid()));
            let _ = fchown(&file, Some(before.uid()), None);
            // What its group may was not meant for another one.
            let same_group = file.as_file().metadata().map_err(failed)?.gid() == before.gid();
            let kept = if same_group { 0o777 } else { 0o707 };
            let mode = std::fs::Permissions::from_mode(before.mode() & kept);
            file.as_file().set_permissions(mode).map_err(failed)?;
        }
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }
}

/// What came of looking a password up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verified {
    /// It is right.
    Right,
    /// It is not.
    Wrong,
    /// There is no such user here.
    Unknown,
}

/// What was read of a file.
struct Loaded {
    users: Users,
    /// Whether any of them can log in with SCRAM.
    any_scram: bool,
}

impl Loaded {
    fn read(path: &Path) -> Result<Loaded, PasswordFileError> {
        let users = Users::read(path)?;
        let any_scram = users.0.values().any(|user| user.scram.is_some());
        Ok(Loaded { users, any_scram })
    }
}

/// A password file in use: it is read again when it changes.
pub(super) struct Passwords {
    path: PathBuf,
    loaded: ArcSwap<Loaded>,
    stamp: Mutex<Stamp>,
    /// Passwords that were right, by a keyed hash of user, hash and password: a device that comes back costs no argon2.
    verified: Arc<Memory<()>>,
}

impl Passwords {
    /// Reads the file. Blocks.
    pub(super) fn open(path: &Path) -> Result<Passwords, PasswordFileError> {
        let stamp = Stamp::of(path);
        let loaded = Loaded::read(path)?;
        let verified =
            Memory::new(VERIFIED_MAX).map_err(|error| PasswordFileError::Hash(error.to_owned()))?;
        Ok(Passwords {
            path: path.to_owned(),
            loaded: ArcSwap::from_pointee(loaded),
            stamp: Mutex::new(stamp),
            verified: Arc::new(verified),
        })
    }

    /// Takes over what another remembers. It is known by the hash in the file, so that it counts for that alone.
    pub(super) fn follow(&mut self, before: &Passwords) {
        self.verified = Arc::clone(&before.verified);
    }

    /// Reads the file again if it has changed; whether it has. Blocks.
    pub(super) fn refresh(&self) -> Result<bool, PasswordFileError> {
        let now = Stamp::of(&self.path);
        if *self.stamp.lock() == now {
            return Ok(false);
        }
        // Noted first, so that a bad file is told of once.
        *self.stamp.lock() = now;
        self.loaded.store(Arc::new(Loaded::read(&self.path)?));
        Ok(true)
    }

    /// Whether there is such a user.
    pub(super) fn has(&self, user: &str) -> bool {
        self.loaded.load().users.0.contains_key(user)
    }

    /// Whether anybody can log in with SCRAM.
    pub(super) fn has_any_scram(&self) -> bool {
        self.loaded.load().any_scram
    }

    /// A user's SCRAM credentials.
    pub(super) fn scram(&self, user: &str) -> Option<Credentials> {
        self.loaded.load().users.0.get(user)?.scram.clone()
    }

    /// Passwords remembered.
    pub(super) fn remembered(&self) -> usize {
        self.verified.len()
    }

    /// Whether the password is right. Argon2 runs on a thread for such work, as many at a time as `room` has.
    pub(super) async fn verify(&self, user: &str, password: &[u8], room: &Arc<Semaphore>) -> Verified {
        let Some(hash) = self.loaded.load().users.0.get(user).map(|user| Arc::clone(&user.hash)) else {
            return Verified::Unknown;
        };
        let key = self.verified.key(&[user.as_bytes(), hash.as_bytes(), password]);
        if self.verified.get(&key).is_some() {
            return Verified::Right;
        }
        if !argon2_fits(hash, ByteString::from(user), password, room).await {
            return Verified::Wrong;
        }
        self.verified.put(key, (), Instant::now() + VERIFIED_FOR);
        Verified::Right
    }
}

/// As long as looking a password up takes when there is such a user.
pub(super) async fn verify_nobody(password: &[u8], room: &Arc<Semaphore>) {
    /// Of a random password, with the parameters that `tidemill passwd` uses.
    const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
                        AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    argon2_fits(HASH.into(), ByteString::new(), password, room).await;
}

async fn argon2_fits(hash: Arc<str>, user: ByteString, password: &[u8], room: &Arc<Semaphore>) -> bool {
    let Ok(permit) = Arc::clone(room).acquire_owned().await else { return false };
    let password = password.to_vec();
    let verified = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        PasswordHash::new(&hash)
            .is_ok_and(|parsed| Argon2::default().verify_password(&password, &parsed).is_ok())
    });
    verified.await.unwrap_or_else(|error| {
        tracing::error!(user = &*user, %error, "a password could not be looked at; its client is refused");
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        let mut users = Users::default();
        assert!(users.set("bob", "secret", true).unwrap());
        assert!(users.set("eve", "other", false).unwrap());
        assert!(!users.set("bob", "secret2", true).unwrap());
        users.write(&path).unwrap();
        // Works for the administrator only; for others the owner is the same anyway.
        let _ = std::os::unix::fs::chown(&path, Some(4711), Some(4712));
        let owner = |path| std::fs::metadata(path).map(|of| (of.uid(), of.gid())).unwrap();
        let before = owner(&path);
        let mode = || std::fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        for given in [0o640, 0o400, 0o600] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(given)).unwrap();
            users.write(&path).unwrap();
            assert_eq!((owner(&path), mode()), (before, given));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("bob:$argon2id$v=19$m=19456,t=2,p=1$") && !text.contains("secret"),
            "{text}"
        );
        let mut users = Users::read(&path).unwrap();
        assert!(users.has_scram("bob") && !users.has_scram("eve"));
        assert!(users.remove("bob") && !users.remove("bob"));
        for bad in ["", "a:b", "#a", "a\nb"] {
            assert!(matches!(users.set(bad, "x", true), Err(PasswordFileError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        let line = |text: &str| Users::parse(text).err();
        assert_eq!(line("# c\n\nbob\n"), Some((3, "it has no `:`")));
        assert_eq!(line(":x"), Some((1, "it has no user name")));
        assert_eq!(line("bob:x"), Some((1, "what follows the user name is no password hash")));
        let hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(line(&format!("bob:{hash}\nbob:{hash}")), Some((2, "the user was there before")));
        assert_eq!(line(&format!("bob:{hash}:SCRAM")), Some((1, "its SCRAM credentials are none")));
        assert_eq!(
            line(&format!("bob:{}", hash.replace("2id", "2i"))),
            Some((1, "its password hash is not of argon2id"))
        );
    }

    #[tokio::test]
    async fn passwords_are_right_wrong_or_unknown_and_the_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        let mut users = Users::default();
        users.set("bob", "secret", true).unwrap();
        users.write(&path).unwrap();
        let passwords = Passwords::open(&path).unwrap();
        let room = Arc::new(Semaphore::new(1));
        assert_eq!(passwords.verify("bob", b"secret", &room).await, Verified::Right);
        assert_eq!(passwords.remembered(), 1);
        assert_eq!(passwords.verify("bob", b"secret", &room).await, Verified::Right);
        assert_eq!(passwords.verify("bob", b"Secret", &room).await, Verified::Wrong);
        assert_eq!(passwords.verify("eve", b"secret", &room).await, Verified::Unknown);
        verify_nobody(b"x", &room).await;
        assert!(!passwords.refresh().unwrap());
        users.set("bob", "changed", true).unwrap();
        users.write(&path).unwrap();
        assert!(passwords.refresh().unwrap());
        assert_eq!(passwords.verify("bob", b"secret", &room).await, Verified::Wrong);
        assert_eq!(passwords.verify("bob", b"changed", &room).await, Verified::Right);
        std::fs::write(&path, "nonsense").unwrap();
        assert!(passwords.refresh().is_err() && !passwords.refresh().unwrap());
        assert!(passwords.has("bob"), "a bad file changes nothing");
    }
}
