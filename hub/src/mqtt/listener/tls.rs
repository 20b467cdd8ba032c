//! [`TlsOptions`], and what the files they name come to: certificates, key, who signs clients' certificates.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoClientAuth, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    Error, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Largest file of certificates or keys, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What a listener shows, and what it demands.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TlsOptions {
    /// PEM file: the listener's certificate, then those that lead to its root.
    pub certificate: PathBuf,
    /// PEM file: the certificate's private key.
    pub key: PathBuf,
    /// PEM file: roots that clients' certificates are signed by.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether clients show a certificate. Default: required where there is a `client_ca`, else none.
    #[serde(default)]
    pub client_certificate: Option<ClientCertificate>,
    /// PEM file: certificates of clients that count no more.
    #[serde(default)]
    pub client_crl: Option<PathBuf>,
    /// Lowest version of TLS. Default: 1.2.
    #[serde(default)]
    pub version_min: TlsVersion,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// They are not asked for one.
    None,
    /// They may; a bad one is refused.
    Optional,
    /// They must.
    Required,
}

/// Lowest version of TLS.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    #[serde(rename = "tls1.2")]
    Tls12,
    /// 1.3.
    #[serde(rename = "tls1.3")]
    Tls13,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsError {
    /// The key that names it.
    pub(crate) key: &'static str,
    /// What is wrong, with the file's name.
    pub(crate) what: String,
    /// What to do.
    pub(crate) hint: Option<&'static str>,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What the files come to.
pub(crate) struct Loaded {
    /// For new connections.
    pub(super) config: Arc<ServerConfig>,
    /// When the certificate ends, in seconds since the Unix epoch.
    pub(super) expires_s: i64,
    /// What can be used, and will hardly be meant.
    pub(crate) doubt: Option<TlsError>,
}

impl TlsOptions {
    /// Whether clients have to show a certificate.
    pub(super) fn demands_certificate(&self) -> bool {
        self.clients() == ClientCertificate::Required
    }

    fn clients(&self) -> ClientCertificate {
        match (self.client_certificate, &self.client_ca) {
            (Some(said), _) => said,
            (None, Some(_)) => ClientCertificate::Required,
            (None, None) => ClientCertificate::None,
        }
    }

    /// Says what does not go together. Looks at no files.
    pub(super) fn check(&self) -> Result<(), String> {
        match (self.clients(), &self.client_ca, &self.client_crl) {
            (ClientCertificate::Optional | ClientCertificate::Required, None, _) => {
                Err("clients' certificates need a `client_ca` that signs them".to_owned())
            }
            (_, None, Some(_)) => Err("`client_crl` goes with `client_ca`".to_owned()),
            _ => Ok(()),
        }
    }

    /// The files that are read.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let always =
            [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref(), self.client_crl.as_ref()];
        always.into_iter().flatten().map(PathBuf::as_path)
    }

    /// Reads the files as they are now.
    pub(crate) fn load(&self) -> Result<Loaded, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain: Vec<CertificateDer<'static>> = several("certificate", &self.certificate, "certificate")?;
        let (expires_s, doubt) = self.validity(&chain)?;
        let shown = self.certified(chain, &provider)?;
        let versions: &[&SupportedProtocolVersion] = match self.version_min {
            TlsVersion::Tls12 => &[&version::TLS12, &version::TLS13],
            TlsVersion::Tls13 => &[&version::TLS13],
        };
        let ours = |error: Error| TlsError { key: "certificate", what: error.to_string(), hint: None };
        let verifier = self.verifier(&provider)?;
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions).map_err(ours)?;
        let builder = builder.with_client_cert_verifier(verifier);
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
        // Clients that come back need no new handshake. Tickets end with this configuration: one that is reloaded knows
        // no one.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(ours)?;
        config.send_tls13_tickets = 1;
        Ok(Loaded { config: Arc::new(config), expires_s, doubt })
    }

    /// When the certificate ends, and whether it counts today.
    fn validity(&self, chain: &[CertificateDer<'_>]) -> Result<(i64, Option<TlsError>), TlsError> {
        let shown = self.certificate.display();
        let problem = |what: String| TlsError { key: "certificate", what, hint: None };
        let leaf = chain.first().map(|leaf| X509Certificate::from_der(leaf));
        let Some(Ok((_, leaf))) = leaf else {
            return Err(problem(format!("the first certificate of `{shown}` is none")));
        };
        let (begins, ends) = (leaf.validity().not_before, leaf.validity().not_after);
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
        let what = match now_s {
            _ if now_s > ends.timestamp() => Some(format!("the certificate `{shown}` expired at {ends}")),
            _ if now_s < begins.timestamp() => {
                Some(format!("the certificate `{shown}` counts from {begins} on"))
            }
            _ => None,
        };
        Ok((ends.timestamp(), what.map(problem)))
    }

    /// The chain with its key.
    fn certified(
        &self,
        chain: Vec<CertificateDer<'static>>,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, TlsError> {
        let shown = self.key.display();
        let problem = |what: String, hint| TlsError { key: "key", what, hint };
        let pem = read("key", &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
            let encrypted = pem.windows(9).any(|bytes| bytes == b"ENCRYPTED");
            match encrypted {
                true => problem(
                    format!("the key `{shown}` is encrypted"),
                    Some("decrypt it with `openssl pkey -in KEY -out PLAIN`, readable by the hub alone"),
                ),
                false => problem(
                    format!("`{shown}` has no private key: {error}"),
                    Some("as PEM it begins with `-----BEGIN PRIVATE KEY-----`"),
                ),
            }
        })?;
        let key = provider.key_provider.load_private_key(key);
        let key = key.map_err(|error| problem(format!("the key `{shown}` cannot be used: {error}"), None))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let what = format!(
                    "the key `{shown}` is not that of the certificate `{}`",
                    self.certificate.display()
                );
                Err(problem(what, Some("the certificate comes first in its file, then those that sign it")))
            }
            // Not every kind of key can say whose it is.
            _ => Ok(certified),
        }
    }

    /// Who looks at clients' certificates.
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let (clients, Some(path)) = (self.clients(), &self.client_ca) else {
            return Ok(Arc::new(NoClientAuth));
        };
        if clients == ClientCertificate::None {
            return Ok(Arc::new(NoClientAuth));
        }
        let problem = |what: String| TlsError { key: "client_ca", what, hint: None };
        let mut roots = RootCertStore::empty();
        for root in several::<CertificateDer<'static>>("client_ca", path, "certificate")? {
            let added = roots.add(root);
            added.map_err(|error| {
                problem(format!("a root of `{}` cannot be used: {error}", path.display()))
            })?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        if let Some(path) = &self.client_crl {
            let lists =
                several::<CertificateRevocationListDer<'static>>("client_crl", path, "revocation list")?;
            builder = builder.with_crls(lists).only_check_end_entity_revocation();
        }
        if clients == ClientCertificate::Optional {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| {
            let key = if self.client_crl.is_some() { "client_crl" } else { "client_ca" };
            TlsError { key, ..problem(format!("clients' certificates cannot be looked at: {error}")) }
        })
    }
}

/// Reads a file, which cannot be larger than makes sense.
fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    let what = match read {
        Ok(_) if bytes.len() as u64 <= FILE_BYTES_MAX => return Ok(bytes),
        Ok(_) => format!("`{}` has more than {FILE_BYTES_MAX} bytes", path.display()),
        Err(error) => format!("cannot read `{}`: {error}", path.display()),
    };
    Err(TlsError { key, what, hint: Some("paths are relative to the working directory") })
}

/// All things of one kind in a PEM file, of which there is at least one.
fn several<T: PemObject>(key: &'static str, path: &Path, kind: &str) -> Result<Vec<T>, TlsError> {
    let pem = read(key, path)?;
    let hint = Some("files are PEM: they begin with a line `-----BEGIN …-----`");
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&pem).collect();
    let what = match found {
        Ok(found) if !found.is_empty() => return Ok(found),
        Ok(_) => format!("`{}` has no {kind}", path.display()),
        Err(error) => format!("`{}` has a {kind} that is none: {error}", path.display()),
    };
    Err(TlsError { key, what, hint })
}

#[cfg(test)]
mod tests;
