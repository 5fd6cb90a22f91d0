//! TLS to the app: whom we believe to be it, what we show of ourselves, and which HTTP is asked for.
//! Connecting is the business of `upstream.rs`.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ALPN_HTTP1, ALPN_HTTP2, TlsError, authorities, certified_key};
use crate::settings::{AppHttp, AppTlsSettings};

/// What handshakes with the app need; it can be replaced while they go on.
pub struct AppTls {
    settings: AppTlsSettings,
    http: AppHttp,
    name: ServerName<'static>,
    current: ArcSwap<AppTlsFiles>,
}

/// What was made of the files.
pub struct AppTlsFiles {
    /// As configured.
    wanted: Arc<ClientConfig>,
    /// For what HTTP/1.1 alone can do.
    http1: Arc<ClientConfig>,
}

impl fmt::Debug for AppTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppTls").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl AppTls {
    /// Reads all files.
    pub fn load(settings: &AppTlsSettings, http: AppHttp) -> Result<Self, TlsError> {
        let name = ServerName::try_from(settings.server_name.clone())
            .map_err(|_| TlsError::Name(settings.server_name.clone()))?;
        let current = ArcSwap::from_pointee(read(settings, http)?);
        Ok(Self { settings: settings.clone(), http, name, current })
    }

    /// Reads all files again, for [`Self::use_from_now`].
    pub fn read_again(&self) -> Result<AppTlsFiles, TlsError> {
        read(&self.settings, self.http)
    }

    /// New handshakes use what was read.
    pub fn use_from_now(&self, files: AppTlsFiles) {
        self.current.store(Arc::new(files));
    }

    /// Shakes hands with the app. `http1`: nothing but HTTP/1.1 will do.
    pub(crate) async fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: IO,
        http1: bool,
    ) -> io::Result<TlsStream<IO>> {
        let files = self.current.load_full();
        let config = if http1 { &files.http1 } else { &files.wanted };
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(self.name.clone(), io).await?;
        let agreed = stream.get_ref().1.alpn_protocol();
        // RFC 9113 §3.2: over TLS there is no HTTP/2 that was not agreed on.
        if !http1 && self.http == AppHttp::Http2 && agreed != Some(ALPN_HTTP2) {
            return Err(io::Error::other("the app did not agree to HTTP/2"));
        }
        Ok(stream)
    }
}

fn read(settings: &AppTlsSettings, http: AppHttp) -> Result<AppTlsFiles, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let roots = match &settings.ca {
        Some(path) => authorities(path, |what| TlsError::AppCa { path: path.clone(), what })?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Other)?
        .with_root_certificates(roots);
    let mut config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(files) => builder.with_client_cert_resolver(shown(certified_key(files, &provider)?)),
    };
    let protocols = |names: &[&[u8]]| names.iter().map(|name| name.to_vec()).collect();
    config.alpn_protocols = protocols(&[ALPN_HTTP1]);
    let http1 = Arc::new(config.clone());
    config.alpn_protocols = match http {
        AppHttp::Http1 => protocols(&[ALPN_HTTP1]),
        AppHttp::Http2 => protocols(&[ALPN_HTTP2]),
        AppHttp::Auto => protocols(&[ALPN_HTTP2, ALPN_HTTP1]),
    };
    Ok(AppTlsFiles { wanted: Arc::new(config), http1 })
}

fn shown(key: CertifiedKey) -> Arc<dyn ResolvesClientCert> {
    Arc::new(SingleCertAndKey::from(key))
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems have certificates that nobody can read; they are trusted by nobody then.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::NoRoots(why));
    }
    Ok(roots)
}
