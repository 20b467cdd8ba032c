//! What the environment says of a test.

use std::fmt::Debug;
use std::str::FromStr;

use crate::report;

/// The value of a variable, if it is there.
///
/// # Panics
/// When it is not what it has to be.
#[must_use]
pub fn variable<T: FromStr<Err: Debug>>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name} is {value}: {error:?}")))
}

/// The seed of a test's random choices, from `TIDEMILL_SEED` or a new one. It is printed.
///
/// # Panics
/// When `TIDEMILL_SEED` is no number.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let seed = variable("TIDEMILL_SEED").unwrap_or_else(rand::random);
    report!(test, "seed {seed} (set TIDEMILL_SEED to repeat)");
    seed
}
