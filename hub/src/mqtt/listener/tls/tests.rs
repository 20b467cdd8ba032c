use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::*;

struct Files {
    dir: TempDir,
    options: TlsOptions,
}

impl Files {
    /// A root, and a certificate of it for `localhost` that ends in `end` (a year).
    fn new(end: i32) -> Files {
        let dir = TempDir::new().unwrap();
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        let certificate = params.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let options = TlsOptions {
            certificate: write("server.pem", &certificate.pem()),
            key: write("server.key", &key.serialize_pem()),
            client_ca: Some(write("ca.pem", &root_pem)),
            client_certificate: None,
            client_crl: None,
            version_min: TlsVersion::Tls12,
        };
        Files { dir, options }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// The key that is complained about, and the complaint.
fn problem(options: &TlsOptions) -> (&'static str, String) {
    let error = options.load().err().expect("a problem");
    (error.key, error.what)
}

#[test]
fn good_files_are_good() {
    let Files { options, .. } = &Files::new(2999);
    let loaded = options.load().unwrap();
    assert!(loaded.doubt.is_none());
    assert_eq!(loaded.expires_s, rcgen::date_time_ymd(2999, 1, 1).unix_timestamp());
    assert!(options.demands_certificate(), "a client_ca without a word means required");
}

#[test]
fn an_expired_certificate_is_a_doubt() {
    let loaded = Files::new(2001).options.load().unwrap();
    assert!(loaded.doubt.unwrap().what.contains("expired at"));
}

#[test]
fn problems_name_the_key_and_the_file() {
    let files = Files::new(2999);
    let with = |change: &dyn Fn(&mut TlsOptions)| {
        let mut options = files.options.clone();
        change(&mut options);
        problem(&options)
    };
    let (key, what) = with(&|options| options.certificate = "/none/such.pem".into());
    assert!(key == "certificate" && what.contains("cannot read `/none/such.pem`"), "{what}");
    let (key, what) = with(&|options| options.certificate = options.key.clone());
    assert!(key == "certificate" && what.contains("has no certificate"), "{what}");
    let (key, what) = with(&|options| options.key = options.certificate.clone());
    assert!(key == "key" && what.contains("has no private key"), "{what}");
    let other = files.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    let (key, what) = with(&|options| options.key = other.clone());
    assert!(key == "key" && what.contains("is not that of the certificate"), "{what}");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted = files.write("encrypted.key", encrypted);
    let (key, what) = with(&|options| options.key = encrypted.clone());
    assert!(key == "key" && what.contains("is encrypted"), "{what}");
    let (key, what) = with(&|options| options.client_ca = Some("/none/ca.pem".into()));
    assert!(key == "client_ca" && what.contains("/none/ca.pem"), "{what}");
    let (key, what) = with(&|options| options.client_crl = options.client_ca.clone());
    assert!(key == "client_crl" && what.contains("has no revocation list"), "{what}");
}

#[test]
fn certificates_of_clients_need_someone_who_signs_them() {
    let Files { options, .. } = Files::new(2999);
    let without = TlsOptions { client_ca: None, ..options.clone() };
    assert_eq!(without.check(), Ok(()));
    let required = TlsOptions { client_certificate: Some(ClientCertificate::Required), ..without.clone() };
    assert!(required.check().is_err());
    let none = TlsOptions { client_certificate: Some(ClientCertificate::None), ..options };
    assert!(none.check() == Ok(()) && !none.demands_certificate());
}
