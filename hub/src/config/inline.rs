//! Configurations that a test writes out.

use super::{Config, ConfigError, Flags, Source, load};

/// Loads a text as if it were the file `tidemill.yaml`.
pub(super) fn inline(text: &str, flags: Flags) -> Result<Config, ConfigError> {
    let inline = Some(("tidemill.yaml".to_owned(), text.to_owned()));
    load(&Source { flags, inline, ..Source::default() })
}

/// All that is wrong with such a text, as people are told; empty if it is good.
pub(super) fn problems(text: &str) -> String {
    inline(text, Flags::default()).err().map(|error| error.render()).unwrap_or_default()
}
