//! A certificate authority that lives as long as the server.
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Makes a CA, a certificate for loopback and the names of buckets, and writes the CA's to `ca_file`.
pub fn acceptor(buckets: &[String], ca_file: &Path) -> io::Result<TlsAcceptor> {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "s3dataset local S3, for tests only");
    let ca_key = KeyPair::generate().map_err(io::Error::other)?;
    let ca_certificate = ca.self_signed(&ca_key).map_err(io::Error::other)?;
    std::fs::write(ca_file, ca_certificate.pem())?;

    let mut names = ["localhost", "s3.localhost", "*.s3.localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    // A wildcard directly below "localhost" is refused by many verifiers.
    names.extend(buckets.iter().map(|bucket| format!("{bucket}.localhost")));
    let mut leaf = CertificateParams::new(names).map_err(io::Error::other)?;
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    let leaf_key = KeyPair::generate().map_err(io::Error::other)?;
    let issuer = Issuer::new(ca, ca_key);
    let certificate = leaf.signed_by(&leaf_key, &issuer).map_err(io::Error::other)?;

    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
