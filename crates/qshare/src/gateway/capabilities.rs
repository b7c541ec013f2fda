//! Capabilities: random numbers, each of which lets its holder read one content for a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use tokio_util::sync::CancellationToken;

/// Capabilities at once. One takes less than 10 KiB.
const CAPABILITIES_MAX: usize = 1000;

/// The secret of a capability, 128 random bits. It has no `Debug`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Secret([u8; 16]);

impl Secret {
    /// Parses 32 lower-case hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Secret> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
        Some(Secret(bytes.try_into().ok()?))
    }

    /// Returns 32 lower-case hexadecimal digits, which are a secret.
    pub(crate) fn to_text(self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

/// A capability for a content `C`.
#[derive(Clone)]
pub(crate) struct Capability<C> {
    /// Its secret.
    pub(crate) secret: Secret,
    /// The content that its holder may read.
    pub(crate) content: C,
    /// When it ends.
    pub(crate) expires_at: SystemTime,
    /// Cancelled when it is revoked, which ends answers under way.
    pub(crate) revoked: CancellationToken,
}

/// All capabilities of a node, in memory: they end with the process.
pub(crate) struct Capabilities<C> {
    by_secret: Mutex<HashMap<Secret, Capability<C>>>,
}

/// There are [`CAPABILITIES_MAX`] that have not expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl<C: Clone> Capabilities<C> {
    pub(crate) fn new() -> Capabilities<C> {
        Capabilities {
            by_secret: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Secret, Capability<C>>> {
        self.by_secret
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a capability that ends `valid` after `now`.
    pub(crate) fn make(
        &self,
        content: C,
        now: SystemTime,
        valid: Duration,
    ) -> Result<Capability<C>, TooMany> {
        let mut by_secret = self.lock();
        by_secret.retain(|_, known| known.expires_at > now);
        if by_secret.len() >= CAPABILITIES_MAX {
            return Err(TooMany);
        }
        let made = Capability {
            secret: Secret(rand::random()),
            content,
            expires_at: now + valid,
            revoked: CancellationToken::new(),
        };
        by_secret.insert(made.secret, made.clone());
        Ok(made)
    }

    /// Returns a capability that has not expired.
    pub(crate) fn get(&self, secret: Secret, now: SystemTime) -> Option<Capability<C>> {
        let mut by_secret = self.lock();
        let known = by_secret.get(&secret)?;
        if known.expires_at <= now {
            by_secret.remove(&secret);
            return None;
        }
        Some(known.clone())
    }

    /// Revokes a capability; returns false if there is none.
    pub(crate) fn revoke(&self, secret: Secret) -> bool {
        let removed = self.lock().remove(&secret);
        if let Some(removed) = &removed {
            removed.revoked.cancel();
        }
        removed.is_some()
    }

    /// Returns those that have not expired, soonest to expire first.
    pub(crate) fn list(&self, now: SystemTime) -> Vec<Capability<C>> {
        let mut by_secret = self.lock();
        by_secret.retain(|_, known| known.expires_at > now);
        let mut all: Vec<_> = by_secret.values().cloned().collect();
        all.sort_by_key(|known| (known.expires_at, known.secret));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_capability_ends_when_it_expires_or_is_revoked() {
        let capabilities = Capabilities::new();
        let now = SystemTime::UNIX_EPOCH;
        let first = capabilities.make("a", now, HOUR).ok().unwrap();
        let second = capabilities.make("b", now, HOUR * 2).ok().unwrap();
        let text = second.secret.to_text();
        assert_eq!(text.len(), 32);
        let secret = Secret::parse(&text).unwrap();
        assert_eq!(capabilities.get(secret, now).unwrap().content, "b");
        assert_eq!(capabilities.list(now).len(), 2);
        assert!(capabilities.get(first.secret, now + HOUR).is_none());
        assert_eq!(capabilities.list(now + HOUR).len(), 1);
        assert!(capabilities.revoke(second.secret));
        assert!(second.revoked.is_cancelled());
        assert!(!capabilities.revoke(second.secret));
        assert!(capabilities.get(second.secret, now).is_none());
    }

    #[test]
    fn expired_capabilities_make_room() {
        let capabilities = Capabilities::new();
        let now = SystemTime::UNIX_EPOCH;
        for _ in 0..CAPABILITIES_MAX {
            assert!(capabilities.make((), now, HOUR).is_ok());
        }
        assert_eq!(capabilities.make((), now, HOUR).err(), Some(TooMany));
        assert!(capabilities.make((), now + HOUR, HOUR).is_ok());
    }

    #[test]
    fn a_secret_has_one_spelling() {
        assert!(Secret::parse(&"0f".repeat(16)).is_some());
        for text in [
            "",
            "0f",
            &"0F".repeat(16),
            &"0f".repeat(17),
            &"zz".repeat(16),
        ] {
            assert!(Secret::parse(text).is_none(), "{text}");
        }
    }
}
