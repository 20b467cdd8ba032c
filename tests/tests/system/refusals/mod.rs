//! Bad input gets a clear error that names the place, and changes nothing.
//!
//! # Layout
//! - [`configuration`] files that `check` and `serve` refuse
//! - [`packets`] MQTT that is not, and payloads that are too large or not JSON
//! - [`text`] payloads that are said to be text
//! - [`data_directory`] directories that cannot be used

mod configuration;
mod data_directory;
mod packets;
mod text;
