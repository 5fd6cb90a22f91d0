//! TLS towards clients: certificates from files, which of them a client gets, and new ones in place
//! of old while it runs. Handshakes and their deadlines are the business of `listener.rs`; TLS to
//! the app is in `tls/app.rs`.

mod app;
mod validity;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

pub use self::app::{AppTls, AppTlsFiles};
use crate::session::Timestamp;
use crate::settings::{CertificateFiles, TlsSettings};

/// The name of HTTP/2 in a handshake.
pub const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not a PEM file: {what}", path.display())]
    NotPem { path: PathBuf, what: String },
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} holds no private key that is not encrypted", .0.display())]
    NoKey(PathBuf),
    #[error("{} cannot be used: {source}", path.display())]
    Unusable { path: PathBuf, source: rustls::Error },
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("{} cannot be the authority of clients: {what}", path.display())]
    ClientCa { path: PathBuf, what: String },
    #[error("{} cannot be the authority of the app: {what}", path.display())]
    AppCa { path: PathBuf, what: String },
    #[error("this system has no certificates of authorities ({0}); name the app's with `ca`")]
    NoRoots(String),
    #[error("{0:?} is not a name that a certificate can be for")]
    Name(String),
    #[error("TLS cannot be set up: {0}")]
    Other(rustls::Error),
}

/// Until when a certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub path: PathBuf,
    pub not_after: Timestamp,
}

/// What handshakes need; it can be replaced while they go on.
pub struct Tls(ArcSwap<ServerConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads all files.
    pub fn load(settings: &TlsSettings, http2: bool) -> Result<(Self, Vec<Expiry>), TlsError> {
        let (config, expiries) = read(settings, http2)?;
        Ok((Self(ArcSwap::from_pointee(config)), expiries))
    }

    /// New handshakes use what the other has read.
    pub fn replace(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

fn read(settings: &TlsSettings, http2: bool) -> Result<(ServerConfig, Vec<Expiry>), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut keys = Vec::with_capacity(settings.certificates.len());
    let mut expiries = Vec::new();
    for files in &settings.certificates {
        let key = certified_key(files, &provider)?;
        let not_after = key.cert.first().and_then(|leaf| validity::not_after(leaf));
        expiries.extend(
            not_after.map(|not_after| Expiry { path: files.certificate.clone(), not_after }),
        );
        keys.push(Arc::new(key));
    }
    // TLS 1.2 and 1.3: rustls has no older ones.
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Other)?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let refused = |what: String| TlsError::ClientCa { path: path.clone(), what };
            let roots = authorities(path, refused)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = match settings.client_auth_optional {
                true => verifier.allow_unauthenticated(),
                false => verifier,
            };
            let verifier = verifier.build().map_err(|error| refused(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName { keys }));
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Other)?;
    config.alpn_protocols = match http2 {
        true => vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()],
        false => vec![ALPN_HTTP1.to_vec()],
    };
    Ok((config, expiries))
}

/// The authorities in a file.
fn authorities(
    path: &Path,
    refused: impl Fn(String) -> TlsError,
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    Ok(roots)
}

fn certified_key(
    files: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey(files.key.clone()),
        error => pem_error(&files.key, error),
    })?;
    let unusable = |path: &Path, source| TlsError::Unusable { path: path.to_owned(), source };
    let key = provider.key_provider.load_private_key(key);
    let key = CertifiedKey::new(chain, key.map_err(|source| unusable(&files.key, source))?);
    match key.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(key),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        }),
        Err(source) => Err(unusable(&files.certificate, source)),
    }
}

/// All certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| pem_error(path, error))?;
    if found.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(found) }
}

fn pem_error(path: &Path, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TlsError::Unreadable { path, source },
        // The others show bytes of the file, which may be those of a key.
        pem::Error::MissingSectionEnd { .. } => {
            TlsError::NotPem { path, what: "a section has no end".to_owned() }
        }
        pem::Error::Base64Decode(_) => TlsError::NotPem { path, what: "not Base64".to_owned() },
        _ => TlsError::NotPem { path, what: "malformed".to_owned() },
    }
}

/// The certificate for the host that the client names.
#[derive(Debug)]
struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            let name = ServerName::try_from(name).ok()?;
            let schemes = hello.signature_schemes();
            let can_sign = |key: &CertifiedKey| key.key.choose_scheme(schemes).is_some();
            self.keys.iter().find(|key| is_for(key, &name) && can_sign(key))
        });
        named.or(self.keys.first()).cloned()
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.cert.first().is_some_and(|leaf| {
        webpki::EndEntityCert::try_from(leaf)
            .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(name).is_ok())
    })
}
