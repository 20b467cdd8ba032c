//! [`ClientTls`]: whom a client trusts, and how it shows who it is.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// TLS with one server.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server: ServerName<'static>,
}

impl ClientTls {
    /// Trusts what is signed by the roots in the PEM file `ca`, for a server of this host name or IP address, and shows the
    /// certificate of the PEM files `identity` (certificate, key), if there are some.
    ///
    /// # Errors
    /// A file cannot be read or is not what it should be; with its name.
    pub fn load(host: &str, ca: &Path, identity: Option<(&Path, &Path)>) -> Result<Self, String> {
        let server = ServerName::try_from(host.to_owned()).map_err(|error| format!("`{host}`: {error}"))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(ca)? {
            roots.add(root).map_err(|error| format!("{}: {error}", ca.display()))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let read = PrivateKeyDer::from_pem_file(key);
                let private = read.map_err(|error| format!("{}: {error}", key.display()))?;
                let shown = builder.with_client_auth_cert(certificates(certificate)?, private);
                shown.map_err(|error| format!("{}, {}: {error}", certificate.display(), key.display()))?
            }
        };
        Ok(ClientTls { config: Arc::new(config), server })
    }
}

/// The certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?.collect();
    match found {
        Ok(found) if found.is_empty() => Err(failed(&"it has no certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(failed(&error)),
    }
}
