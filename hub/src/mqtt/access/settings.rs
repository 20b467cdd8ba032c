//! [`Settings`]: what `access:` says, checked.

use std::path::PathBuf;

use super::acl::Acl;
use super::certificates::CertificateSettings;
use super::hook::HookSettings;
use super::jwt::JwtSettings;

/// Everything about access that can be set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who says who somebody is, in the order in which they are asked.
    pub authentication: Vec<SourceSettings>,
    /// Users by the group they belong to.
    pub groups: Vec<(String, Vec<String>)>,
    /// Who may do what; everybody everything without it.
    pub acl: Option<Acl>,
    /// Whether somebody may come in without saying who it is, where a listener does not say.
    pub anonymous: bool,
    /// What listeners say, by their names.
    pub listeners: Vec<(String, Policy)>,
}

/// The groups that list a user.
pub fn groups_of<'a>(
    groups: &'a [(String, Vec<String>)],
    user: Option<&'a str>,
) -> impl Iterator<Item = &'a str> {
    let lists = move |users: &[String]| user.is_some_and(|user| users.iter().any(|other| other == user));
    groups.iter().filter(move |(_, users)| lists(users)).map(|(group, _)| &**group)
}

/// What a listener says about who may come to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Names of the sources that are asked here, in this order; all of them in theirs without it.
    pub authentication: Option<Vec<String>>,
    /// Whether somebody may come in without saying who it is, if it says.
    pub anonymous: Option<bool>,
}

/// One source of authentication.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub kind: SourceKind,
}

/// What a source of authentication is.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// A password file.
    Passwords(PathBuf),
    /// Tokens.
    Jwt(Box<JwtSettings>),
    /// Certificates.
    Certificates(CertificateSettings),
    /// An HTTP endpoint.
    Http(Box<HookSettings>),
}
