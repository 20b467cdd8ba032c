//! [`Proof`]: somebody else's client of SCRAM-SHA-256.

use rsasl::config::SASLConfig;
use rsasl::mechname::Mechname;
use rsasl::prelude::{SASLClient, Session};

/// The name of the method.
pub const METHOD: &str = "SCRAM-SHA-256";

/// The client's side of the method. It proves a password, and checks that the server knows it too.
pub struct Proof(Session);

impl Proof {
    /// For a user and what the password is said to be.
    ///
    /// # Panics
    /// When there is no such name or password.
    #[must_use]
    pub fn new(user: &str, password: &str) -> Proof {
        let config = SASLConfig::with_credentials(None, user.to_owned(), password.to_owned());
        let method = Mechname::parse(METHOD.as_bytes()).expect("a name");
        Proof(SASLClient::new(config.expect("credentials")).start_suggested(&[method]).expect("a method"))
    }

    /// What the client says to what the server said; it begins.
    ///
    /// # Panics
    /// When the server does not prove what it has to.
    pub fn say(&mut self, heard: Option<&[u8]>) -> Vec<u8> {
        let mut said = Vec::new();
        self.0.step(heard, &mut said).expect("a step");
        said
    }
}
