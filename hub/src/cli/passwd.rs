//! `tidemill passwd`: users of a password file.

use std::io::{IsTerminal, stdin};
use std::path::PathBuf;

use super::{Failed, print};
use crate::mqtt::access::passwords::Users;

/// Longest password in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Give users of a password file a password, or take them out of it
///
/// The file is made if it is not there, readable by its owner alone, and written in one step. One that was there keeps
/// its mode; written by root it keeps its owner. A running hub reads it again by itself.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The password file
    file: PathBuf,
    /// The user
    user: String,
    /// Take the user out of the file
    #[arg(long, conflicts_with_all = ["stdin", "no_scram"])]
    delete: bool,
    /// Read the password from standard input, its first line
    #[arg(long)]
    stdin: bool,
    /// Keep no credentials for SCRAM-SHA-256: the user logs in with the password itself only
    #[arg(long)]
    no_scram: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failed> {
    let Args { file, user, .. } = args;
    let mut users =
        if file.exists() { Users::read(file).map_err(Failed::because)? } else { Users::default() };
    if args.delete {
        if !users.remove(user) {
            return Err(Failed::because(format!("{}: there is no user `{user}`", file.display())));
        }
        users.write(file).map_err(Failed::because)?;
        return print(&format!("{user}: deleted\n"));
    }
    let password = if args.stdin { first_line()? } else { prompt(user)? };
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(Failed::because(format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes")));
    }
    let new = users.set(user, &password, !args.no_scram).map_err(Failed::because)?;
    users.write(file).map_err(Failed::because)?;
    if !args.no_scram && !users.has_scram(user) {
        eprintln!(
            "tidemill: the password is not all printable ASCII: `{user}` cannot log in with SCRAM-SHA-256"
        );
    }
    print(&format!("{user}: {}\n", if new { "added" } else { "changed" }))
}

/// The first line of standard input.
pub(super) fn first_line() -> Result<String, Failed> {
    let mut line = String::new();
    stdin().read_line(&mut line).map_err(|error| Failed::because(format!("standard input: {error}")))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks twice, without showing what is typed.
fn prompt(user: &str) -> Result<String, Failed> {
    if !stdin().is_terminal() {
        return Err(Failed::because("there is no terminal to ask at; use --stdin"));
    }
    let ask = |what: &str| {
        rpassword::prompt_password(format!("{what} for {user}: "))
            .map_err(|error| Failed::because(format!("cannot ask: {error}")))
    };
    let password = ask("Password")?;
    if ask("The same again")? != password {
        return Err(Failed::because("these are two passwords; nothing is changed"));
    }
    Ok(password)
}
