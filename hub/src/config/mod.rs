//! Configuration: `tidemill.yaml`, rule files, and the command-line flags that override them.
//!
//! Everything is checked before anything is opened, and every problem is reported with its place, not only
//! the first one.
//!
//! # Layout
//! - `settings`: the shape of `tidemill.yaml` beside rules and connections
//! - `access`: `access:`: who may connect, and who may do what
//! - `streams`: `streams:` and retention
//! - `flags`: what the command line overrides
//! - `load`: file, included files and flags into one checked [`Config`]
//! - `listeners`: `mqtt.listeners`
//! - `sense`: values that make none, alone or together
//! - `listen`: why nothing listens beyond loopback by accident

mod access;
mod flags;
#[cfg(test)]
mod inline;
mod listen;
mod listeners;
mod load;
mod sense;
mod settings;
mod streams;

pub use flags::Flags;
pub use load::{Config, ConfigError, Rules, Source, load};
pub use settings::{FlushSetting, HttpSettings, LogFormat, Telemetry};
