//! [`Flags`]: what the command line overrides, and enough to run without any file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tidemill_rules::{Diagnostic, yaml};

use super::settings::FlushSetting;

/// Options of `tidemill serve` and `tidemill check` that say what to run.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Configuration file; without one, defaults and the flags below are all there is
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the log and its indexes [default: ./tidemill-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address for MQTT; may be given several times [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDR")]
    pub mqtt: Vec<SocketAddr>,
    /// Address for the HTTP API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// When a message counts as stored [default: sync]
    #[arg(long, value_name = "MODE")]
    pub flush: Option<FlushSetting>,
    /// File with connections and rules, beside those of the configuration; may be given several times
    #[arg(long, value_name = "FILE")]
    pub rules: Vec<PathBuf>,
    /// Let anyone who reaches an address beyond loopback connect without saying who they are
    #[arg(long)]
    pub allow_anonymous: bool,
}

/// A problem with a flag, shown as one with a file is: the flag as it was written, and a mark under its value.
pub(super) fn flag_diagnostic(flag: &str, value: &str, message: String, hint: Option<&str>) -> Diagnostic {
    Diagnostic {
        source: Arc::new(yaml::Source { name: "command line".to_owned(), text: format!("{flag} {value}") }),
        line: 1,
        column: flag.len() + 2,
        length: value.len(),
        message,
        hint: hint.map(str::to_owned),
    }
}
