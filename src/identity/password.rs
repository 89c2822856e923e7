use std::{fmt, sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, Version,
    password_hash::{Error, PasswordHasher, PasswordVerifier},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::Semaphore, task, time};

use super::IdentityError;
use crate::kernel::Detail;

/// Who waits beyond these is refused at once: they could not be served within [`WAIT_MAX`] anyway.
const WAITING_MAX: usize = 64;
/// Longer than this a person does not wait for a login without trying again.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The least that OWASP asks of Argon2id: 19 MiB, two passes, one lane. About 40 ms a hash.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// The hash of a password nobody has, with the parameters above. Whoever tries an e-mail address
/// that has no account waits as long as for a wrong password.
const NOBODYS_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$aG9sZGZhc3Qtbm9ib2R5cw$9sVQ3jvKJ1Kj0m0m2m3cWl0m4c1Hk7c8vX3l2w0c5dQ";

/// A password of an acceptable length, before it is hashed.
#[derive(Clone)]
pub struct Password(SecretString);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the password must have {} to {} characters", Password::LENGTH_MIN, Password::LENGTH_MAX)]
pub struct InvalidPassword;

impl InvalidPassword {
    pub fn at(self, pointer: &str) -> Detail {
        Detail {
            pointer: pointer.to_owned(),
            code: "invalid-password",
            message: self.to_string(),
            available: None,
        }
    }
}

impl Password {
    pub const LENGTH_MIN: usize = 10;
    /// Enough for any passphrase; what is longer only costs us.
    pub const LENGTH_MAX: usize = 128;

    pub fn parse(text: &str) -> Result<Self, InvalidPassword> {
        // Counted no further than needed, so that a long text costs no more than a short one.
        let length = text.chars().take(Self::LENGTH_MAX + 1).count();
        if !(Self::LENGTH_MIN..=Self::LENGTH_MAX).contains(&length) {
            return Err(InvalidPassword);
        }
        Ok(Self(text.into()))
    }
}

/// Hashes passwords without starving anything else: a flood of logins keeps at most as many threads
/// busy as it was made with, and most of the flood is refused.
#[derive(Clone)]
pub struct Hasher {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Hasher {
    /// Hashes on half of the cores, at least on one: whoever asks for passwords to be hashed leaves the
    /// rest to checkouts.
    pub fn for_cores(cores: usize) -> Self {
        Self::new((cores / 2).max(1))
    }

    /// `threads` passwords are hashed at once.
    pub fn new(threads: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(threads)),
            places: Arc::new(Semaphore::new(threads + WAITING_MAX)),
        }
    }

    /// Hashes the password with a salt of its own, as a PHC string.
    pub async fn hash(&self, password: Password) -> Result<String, IdentityError> {
        let hash = self
            .run(move || argon2().hash_password(password.0.expose_secret().as_bytes()))
            .await??;
        Ok(hash.to_string())
    }

    /// Whether the password is the one that was hashed; never, and as slowly, if there is no hash.
    pub async fn verify(
        &self,
        password: Password,
        hash: Option<String>,
    ) -> Result<bool, IdentityError> {
        let known = hash.is_some();
        let verified = self
            .run(move || {
                let hash = hash.as_deref().unwrap_or(NOBODYS_HASH);
                argon2().verify_password(password.0.expose_secret().as_bytes(), hash)
            })
            .await?;
        match verified {
            Ok(()) => Ok(known),
            Err(Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the hash was made with less than is asked today, or by something else than Argon2id.
    pub fn is_outdated(hash: &str) -> bool {
        let Ok(hash) = PasswordHash::new(hash) else { return true };
        let Ok(params) = Params::try_from(&hash) else { return true };
        hash.algorithm != Algorithm::Argon2id.ident()
            || hash.version != Some(u32::from(Version::V0x13))
            || params.m_cost() < MEMORY_KIB
            || params.t_cost() < PASSES
            || params.p_cost() < LANES
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, IdentityError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| IdentityError::Busy)?;
        let turn = time::timeout(WAIT_MAX, self.turns.clone().acquire_owned())
            .await
            .map_err(|_| IdentityError::Busy)?
            .map_err(|_| IdentityError::Busy)?;
        let done = task::spawn_blocking(move || {
            let done = work();
            // Held by the work itself: a client that hangs up does not free the thread it keeps busy.
            drop((turn, place));
            done
        });
        done.await.map_err(|_| IdentityError::HashingPanicked)
    }
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .expect("the parameters are constants in range");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("turns", &self.turns.available_permits())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    fn password(text: &str) -> Password {
        Password::parse(text).unwrap()
    }

    #[test]
    fn the_length_counts_characters() {
        for (text, fits) in [
            ("ninechars", false),
            ("ten chars!", true),
            ("пароль-из", false),
            ("пароль-изъ", true),
            (&*"ы".repeat(128), true),
            (&*"ы".repeat(129), false),
            ("", false),
        ] {
            assert_eq!(Password::parse(text).is_ok(), fits, "{text}");
        }
    }

    #[test]
    fn nobodys_hash_takes_as_long_as_anybodys() {
        let nobodys = PasswordHash::new(NOBODYS_HASH).unwrap();
        let anybodys = argon2().hash_password(b"correct horse battery").unwrap();

        assert_eq!(nobodys.algorithm, anybodys.algorithm);
        assert_eq!(nobodys.version, anybodys.version);
        assert_eq!(nobodys.params, anybodys.params);
        assert_eq!(nobodys.salt.map(|salt| salt.len()), anybodys.salt.map(|salt| salt.len()));
        assert_eq!(nobodys.hash.map(|hash| hash.len()), anybodys.hash.map(|hash| hash.len()));
    }

    #[test]
    fn a_hash_is_outdated_once_more_is_asked() {
        let hash = |algorithm, memory_kib, passes| {
            let params = Params::new(memory_kib, passes, LANES, None).unwrap();
            let argon2 = Argon2::new(algorithm, Version::V0x13, params);
            argon2.hash_password(b"correct horse battery").unwrap().to_string()
        };

        assert!(!Hasher::is_outdated(NOBODYS_HASH));
        assert!(!Hasher::is_outdated(&hash(Algorithm::Argon2id, MEMORY_KIB, PASSES)));
        assert!(!Hasher::is_outdated(&hash(Algorithm::Argon2id, 2 * MEMORY_KIB, PASSES)));
        assert!(Hasher::is_outdated(&hash(Algorithm::Argon2id, MEMORY_KIB / 2, PASSES)));
        assert!(Hasher::is_outdated(&hash(Algorithm::Argon2id, MEMORY_KIB, PASSES - 1)));
        assert!(Hasher::is_outdated(&hash(Algorithm::Argon2i, MEMORY_KIB, PASSES)));
        assert!(Hasher::is_outdated("$2b$12$KIXQ4m0Nw"));
    }

    #[tokio::test]
    async fn only_the_right_password_is_accepted() {
        let hasher = Hasher::new(2);
        let hash = hasher.hash(password("correct horse battery")).await.unwrap();

        let right = hasher.verify(password("correct horse battery"), Some(hash.clone())).await;
        let wrong = hasher.verify(password("correct horse batterz"), Some(hash)).await;
        let nobodys = hasher.verify(password("correct horse battery"), None).await;

        assert!(right.unwrap());
        assert!(!wrong.unwrap());
        assert!(!nobodys.unwrap());
    }

    #[tokio::test]
    async fn a_flood_is_refused_and_those_who_wait_are_served() {
        let hasher = Hasher::new(1);
        let nap = || std::thread::sleep(Duration::from_millis(1));

        let outcomes = join_all((0..200).map(|_| hasher.run(nap))).await;

        let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(served, 1 + WAITING_MAX);
        assert!(hasher.run(nap).await.is_ok());
    }

    #[test]
    fn passwords_leave_half_of_the_machine_to_others() {
        for (cores, threads) in [(1, 1), (2, 1), (3, 1), (4, 2), (64, 32)] {
            let hasher = Hasher::for_cores(cores);
            assert_eq!(hasher.turns.available_permits(), threads, "{cores}");
            assert_eq!(hasher.places.available_permits(), threads + WAITING_MAX, "{cores}");
        }
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_two_seconds() {
        let hasher = Hasher::new(1);
        let _busy = hasher.turns.acquire().await.unwrap();

        let outcome = time::timeout(2 * WAIT_MAX, hasher.run(|| ())).await.unwrap();

        assert!(matches!(outcome, Err(IdentityError::Busy)));
    }
}
